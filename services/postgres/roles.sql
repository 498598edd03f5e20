-- At every start, as the superuser, before anybody else can connect: what is missing is made, and
-- every password is that of its secret. Tables and their grants are the migrations' matter.

-- Statements with passwords are in no log, not even when they fail.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';

\set superuser_password `cat /run/secrets/postgres_password`
\set owner_password `cat /run/secrets/mt5_owner_password`
\set backup_password `cat /run/secrets/mt5_backup_password`
\set exporter_password `cat /run/secrets/mt5_exporter_password`

SELECT format('CREATE ROLE %I', role)
FROM unnest(ARRAY['mt5_owner', 'mt5_backup', 'mt5_exporter', 'mt5_monitor']) AS wanted (role)
WHERE to_regrole(role) IS NULL
\gexec

ALTER ROLE postgres PASSWORD :'superuser_password';
-- Owns the database and makes the services' roles; row security binds it.
ALTER ROLE mt5_owner LOGIN NOSUPERUSER NOBYPASSRLS NOREPLICATION CREATEROLE
    PASSWORD :'owner_password';
ALTER ROLE mt5_backup LOGIN NOSUPERUSER NOBYPASSRLS REPLICATION PASSWORD :'backup_password';
ALTER ROLE mt5_exporter LOGIN NOSUPERUSER NOBYPASSRLS NOREPLICATION PASSWORD :'exporter_password';
GRANT pg_monitor, mt5_monitor TO mt5_exporter;
-- What Barman asks of a role that is no superuser.
GRANT pg_read_all_settings, pg_read_all_stats, pg_checkpoint TO mt5_backup;

SELECT 'CREATE DATABASE mt5 OWNER mt5_owner'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'mt5')
\gexec

\connect mt5
GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean),
    pg_switch_wal(), pg_create_restore_point(text) TO mt5_backup;
