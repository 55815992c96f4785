-- Read access to the archive's bucket: the integration assumes an IAM role, so no key is stored anywhere.
CREATE STORAGE INTEGRATION IF NOT EXISTS ${integration}
  TYPE = EXTERNAL_STAGE
  STORAGE_PROVIDER = 'S3'
  ENABLED = TRUE
  STORAGE_AWS_ROLE_ARN = '${aws_role_arn}'
  STORAGE_ALLOWED_LOCATIONS = ('${archive_url}/');

-- Where it was there already, with another role or archive. Altered, it keeps its external id, which the role trusts.
ALTER STORAGE INTEGRATION ${integration} SET
  STORAGE_AWS_ROLE_ARN = '${aws_role_arn}'
  STORAGE_ALLOWED_LOCATIONS = ('${archive_url}/');

CREATE STAGE IF NOT EXISTS ${database}.LANDING.ARCHIVE
  URL = '${archive_url}/'
  STORAGE_INTEGRATION = ${integration}
  FILE_FORMAT = ${database}.LANDING.LINES;

-- Where it was there already, with another archive.
ALTER STAGE ${database}.LANDING.ARCHIVE SET
  URL = '${archive_url}/'
  STORAGE_INTEGRATION = ${integration};
