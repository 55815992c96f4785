-- Least privilege: one role transforms, one reads gold.
CREATE ROLE IF NOT EXISTS ${transformer} COMMENT = 'Runs SQLMesh';

CREATE ROLE IF NOT EXISTS ${reader} COMMENT = 'Reads gold';

GRANT USAGE ON WAREHOUSE ${warehouse} TO ROLE ${transformer};

GRANT USAGE, CREATE SCHEMA ON DATABASE ${database} TO ROLE ${transformer};

GRANT USAGE ON SCHEMA ${database}.LANDING TO ROLE ${transformer};

GRANT SELECT ON TABLE ${database}.LANDING.STOCK_PRICES_ARCHIVE TO ROLE ${transformer};

GRANT USAGE, CREATE TABLE, CREATE VIEW, CREATE STAGE, CREATE FILE FORMAT ON SCHEMA ${database}.BRONZE TO ROLE ${transformer};

GRANT USAGE, CREATE TABLE, CREATE VIEW, CREATE STAGE, CREATE FILE FORMAT ON SCHEMA ${database}.SILVER TO ROLE ${transformer};

GRANT USAGE, CREATE TABLE, CREATE VIEW, CREATE STAGE, CREATE FILE FORMAT ON SCHEMA ${database}.GOLD TO ROLE ${transformer};

GRANT USAGE ON WAREHOUSE ${warehouse} TO ROLE ${reader};

GRANT USAGE ON DATABASE ${database} TO ROLE ${reader};

GRANT USAGE ON SCHEMA ${database}.GOLD TO ROLE ${reader};

GRANT SELECT ON ALL VIEWS IN SCHEMA ${database}.GOLD TO ROLE ${reader};

GRANT SELECT ON FUTURE VIEWS IN SCHEMA ${database}.GOLD TO ROLE ${reader};

GRANT ROLE ${reader} TO ROLE ${transformer};

GRANT ROLE ${transformer} TO USER ${user};
