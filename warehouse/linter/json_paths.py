"""A rule of this project: no path into JSON but by JSON_EXTRACT_PATH_TEXT."""

from sqlglot import exp
from sqlmesh.core.linter.rule import Rule, RuleViolation
from sqlmesh.core.model import Model, SqlModel


class NoJsonPath(Rule):
    """`record:path` keeps the quotes of a JSON string as text on DuckDB: use JSON_EXTRACT_PATH_TEXT(record, 'path')."""

    def check_model(self, model: Model) -> RuleViolation | None:
        if isinstance(model, SqlModel) and model.query.find(exp.JSONExtract, exp.GetExtract, exp.Bracket):
            return self.violation()
        return None
