-- Compute and database. SQLMesh makes further schemas of its own in the database.
CREATE WAREHOUSE IF NOT EXISTS ${warehouse}
  WAREHOUSE_SIZE = ${warehouse_size}
  AUTO_SUSPEND = 60
  AUTO_RESUME = TRUE
  INITIALLY_SUSPENDED = TRUE
  COMMENT = 'EGX market data';

-- Where it was there already, with another size.
ALTER WAREHOUSE ${warehouse} SET WAREHOUSE_SIZE = ${warehouse_size};

USE WAREHOUSE ${warehouse};

CREATE DATABASE IF NOT EXISTS ${database} COMMENT = 'EGX market data';

CREATE SCHEMA IF NOT EXISTS ${database}.LANDING;

CREATE SCHEMA IF NOT EXISTS ${database}.BRONZE;

CREATE SCHEMA IF NOT EXISTS ${database}.SILVER;

CREATE SCHEMA IF NOT EXISTS ${database}.GOLD;
