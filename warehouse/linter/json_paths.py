"""A rule of this project: no `record:path::TEXT`."""

from sqlglot import exp
from sqlmesh.core.linter.rule import Rule, RuleViolation
from sqlmesh.core.model import Model, SqlModel


class NoJsonPathCast(Rule):
    """`record:path::TEXT` keeps the quotes of a JSON string on DuckDB: use JSON_EXTRACT_PATH_TEXT(record, 'path')."""

    def check_model(self, model: Model) -> RuleViolation | None:
        if isinstance(model, SqlModel) and any(
            isinstance(cast.this, exp.JSONExtract) and cast.to.is_type(*exp.DataType.TEXT_TYPES)
            for cast in model.query.find_all(exp.Cast)
        ):
            return self.violation()
        return None
