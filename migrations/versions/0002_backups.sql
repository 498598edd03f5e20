SET LOCAL client_min_messages = warning;
SET LOCAL search_path = public;

DO $role$
BEGIN
    -- Where there are backups, the server has made it already, with its password and REPLICATION.
    CREATE ROLE mt5_backup NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$role$;

GRANT USAGE ON SCHEMA public TO mt5_backup;

-- It copies the whole cluster, and reads nothing of it but which keys the copy will need.
GRANT SELECT (encryption_key_id) ON accounts TO mt5_backup;
DROP POLICY IF EXISTS keys_in_use ON accounts;
CREATE POLICY keys_in_use ON accounts FOR SELECT TO mt5_backup USING (true);
