-- The schema of mt5-swarm, for an empty PostgreSQL 15 to 18. It needs no contrib extension.
--
-- Applying it again changes nothing that stands and keeps every row. The role that applies it owns
-- everything in it: the owner of the database, with CREATEROLE; superuser is not needed.
--
-- Row security is forced, so it binds the owner too. Backups therefore need a superuser or a role
-- with BYPASSRLS: pg_dump refuses to write a dump that row security would have thinned out.

BEGIN;

SET LOCAL client_min_messages = warning;
SET LOCAL search_path = public;

-- ----------------------------------------------------------------------------------------- roles

DO $roles$
DECLARE
    v_role TEXT;
BEGIN
    FOREACH v_role IN ARRAY ARRAY['mt5_app', 'mt5_worker', 'mt5_monitor'] LOOP
        BEGIN
            -- No password here: the deployment sets them. The monitor is granted to whoever reads.
            EXECUTE format(
                'CREATE ROLE %I %s NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION',
                v_role, CASE v_role WHEN 'mt5_monitor' THEN 'NOLOGIN' ELSE 'LOGIN' END);
        EXCEPTION
            -- Roles belong to the cluster: another database of it may have made them already.
            WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END LOOP;

    -- Such a role would see every row in spite of every policy below.
    SELECT rolname INTO v_role FROM pg_catalog.pg_roles
    WHERE rolname IN ('mt5_app', 'mt5_worker', 'mt5_monitor') AND (rolsuper OR rolbypassrls)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'role % bypasses row security', v_role
            USING HINT = format('ALTER ROLE %I NOSUPERUSER NOBYPASSRLS', v_role);
    END IF;
END
$roles$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO mt5_app, mt5_worker, mt5_monitor;

-- ---------------------------------------------------------------------------------------- tables

CREATE TABLE IF NOT EXISTS accounts (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid UUID NOT NULL DEFAULT gen_random_uuid() UNIQUE,
    account_id TEXT NOT NULL UNIQUE CHECK (account_id ~ '^[A-Za-z0-9_-]{1,64}$'),
    user_id UUID NOT NULL,
    login BIGINT NOT NULL CHECK (login > 0),
    server TEXT NOT NULL CHECK (length(server) BETWEEN 1 AND 100),
    -- Nonce and tag alone are 28 bytes: nothing shorter can have been sealed.
    encrypted_password BYTEA NOT NULL CHECK (octet_length(encrypted_password) > 28),
    wrapped_key BYTEA NOT NULL CHECK (octet_length(wrapped_key) > 28),
    encryption_key_id TEXT NOT NULL CHECK (encryption_key_id <> ''),
    websocket_enabled BOOLEAN NOT NULL DEFAULT FALSE,
    api_enabled BOOLEAN NOT NULL DEFAULT TRUE,
    is_active BOOLEAN NOT NULL DEFAULT TRUE,
    state TEXT NOT NULL DEFAULT 'new' CHECK (state IN (
        'new', 'connecting', 'connected', 'broker_disconnected', 'login_failed', 'disconnected',
        'terminal_unavailable')),
    state_since TIMESTAMPTZ NOT NULL DEFAULT now(),
    last_error JSONB CHECK (
        jsonb_typeof(last_error) = 'object' AND last_error ?& ARRAY['code', 'message']),
    last_login TIMESTAMPTZ,
    last_poll TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    metadata JSONB NOT NULL DEFAULT '{}'::jsonb,
    CONSTRAINT accounts_login_server_key UNIQUE (login, server)
);
-- Rows are rewritten at every state change and poll mark; spare room keeps that off the indexes.
ALTER TABLE accounts SET (fillfactor = 80);
CREATE INDEX IF NOT EXISTS idx_accounts_user ON accounts (user_id, account_id);

COMMENT ON TABLE accounts IS 'Trading accounts whose credentials a broker has accepted once.';
COMMENT ON COLUMN accounts.uuid IS 'Ours, and never changed: the sealed password is bound to it.';
COMMENT ON COLUMN accounts.account_id IS 'The caller''s own identifier, unique across users.';
COMMENT ON COLUMN accounts.login IS 'As the terminal reports it, not as it was typed.';
COMMENT ON COLUMN accounts.encrypted_password IS 'Sealed by the vault under a key of this row.';
COMMENT ON COLUMN accounts.wrapped_key IS 'The row''s key, wrapped by the key encryption_key_id.';
COMMENT ON COLUMN accounts.last_error IS '{code, message} of the failure that led to this state.';

CREATE TABLE IF NOT EXISTS account_state_transitions (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    from_state TEXT,
    to_state TEXT NOT NULL,
    reason TEXT,
    at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS idx_account_state_transitions_account
    ON account_state_transitions (account_id, at DESC);
COMMENT ON TABLE account_state_transitions IS 'Written by a trigger on accounts, by nobody else.';
COMMENT ON COLUMN account_state_transitions.account_id IS 'accounts.id';
COMMENT ON COLUMN account_state_transitions.reason IS 'The code of accounts.last_error, if any.';

CREATE TABLE IF NOT EXISTS websocket_subscriptions (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    user_id UUID NOT NULL,
    instance_id TEXT NOT NULL,
    connected_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    last_heartbeat TIMESTAMPTZ NOT NULL DEFAULT now(),
    disconnected_at TIMESTAMPTZ,
    close_code SMALLINT,
    is_active BOOLEAN NOT NULL DEFAULT TRUE,
    CHECK (is_active = (disconnected_at IS NULL))
);
CREATE INDEX IF NOT EXISTS idx_ws_subscriptions_account ON websocket_subscriptions (account_id);
CREATE INDEX IF NOT EXISTS idx_ws_subscriptions_user ON websocket_subscriptions (user_id);
CREATE INDEX IF NOT EXISTS idx_ws_subscriptions_instance
    ON websocket_subscriptions (instance_id) WHERE is_active;
COMMENT ON TABLE websocket_subscriptions IS 'One row for each socket of a browser.';
COMMENT ON COLUMN websocket_subscriptions.account_id IS 'accounts.id';
COMMENT ON COLUMN websocket_subscriptions.is_active IS
    'A crashed instance leaves TRUE behind; last_heartbeat tells.';

CREATE TABLE IF NOT EXISTS instance_registry (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance_id TEXT NOT NULL UNIQUE,
    instance_type TEXT NOT NULL CHECK (instance_type IN ('websocket', 'api', 'hybrid')),
    hostname TEXT,
    ip_address INET,
    assigned_accounts BIGINT[] NOT NULL DEFAULT '{}',
    cpu_usage DOUBLE PRECISION,
    memory_usage DOUBLE PRECISION,
    active_connections INTEGER NOT NULL DEFAULT 0 CHECK (active_connections >= 0),
    health_status TEXT NOT NULL DEFAULT 'healthy'
        CHECK (health_status IN ('healthy', 'degraded', 'draining', 'unhealthy')),
    last_heartbeat TIMESTAMPTZ NOT NULL DEFAULT now(),
    started_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE instance_registry IS
    'For operators. Who really holds an account is in the leases and placements in Redis.';
COMMENT ON COLUMN instance_registry.assigned_accounts IS 'accounts.id';
COMMENT ON COLUMN instance_registry.cpu_usage IS 'Percent of one core.';
COMMENT ON COLUMN instance_registry.memory_usage IS 'Percent of the container''s limit.';

CREATE TABLE IF NOT EXISTS terminal_events (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    terminal_id TEXT NOT NULL,
    event TEXT NOT NULL,
    detail JSONB NOT NULL DEFAULT '{}'::jsonb,
    at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS idx_terminal_events_terminal ON terminal_events (terminal_id, at DESC);
CREATE INDEX IF NOT EXISTS idx_terminal_events_at ON terminal_events (at);
COMMENT ON TABLE terminal_events IS 'Connects, losses and restarts; uptime is computed from it.';

CREATE TABLE IF NOT EXISTS audit_log (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    detail JSONB NOT NULL DEFAULT '{}'::jsonb,
    request_id TEXT,
    at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS idx_audit_log_target ON audit_log (target, at DESC);
CREATE INDEX IF NOT EXISTS idx_audit_log_at ON audit_log (at);
COMMENT ON TABLE audit_log IS
    'Append only, for every role. It outlives the accounts it names, so it refers to none.';

-- No foreign key: a request may name an account that never was, and the log outlives accounts.
CREATE TABLE IF NOT EXISTS api_request_logs (
    id BIGSERIAL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    request_id TEXT NOT NULL,
    account_id TEXT,
    user_id UUID,
    endpoint TEXT NOT NULL,
    method TEXT NOT NULL,
    status_code INTEGER NOT NULL,
    code TEXT,
    turn BOOLEAN NOT NULL DEFAULT FALSE,
    response_time_ms INTEGER NOT NULL CHECK (response_time_ms >= 0),
    instance_id TEXT NOT NULL,
    PRIMARY KEY (created_at, id)
) PARTITION BY RANGE (created_at);
CREATE TABLE IF NOT EXISTS api_request_logs_default PARTITION OF api_request_logs DEFAULT;
CREATE INDEX IF NOT EXISTS idx_api_logs_account ON api_request_logs (account_id, created_at DESC);
CREATE INDEX IF NOT EXISTS idx_api_logs_request ON api_request_logs (request_id);
COMMENT ON TABLE api_request_logs IS
    'A partition for each UTC day. The default one catches what the daily job has not foreseen.';
COMMENT ON COLUMN api_request_logs.account_id IS 'accounts.account_id as the request named it.';
COMMENT ON COLUMN api_request_logs.endpoint IS 'The route''s template, never the path as typed.';
COMMENT ON COLUMN api_request_logs.code IS 'The error code that was answered, if one was.';
COMMENT ON COLUMN api_request_logs.turn IS 'Whether a terminal turn was waited for.';

-- -------------------------------------------------------------------------------------- triggers

CREATE OR REPLACE FUNCTION update_updated_at_column() RETURNS TRIGGER
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.updated_at := now();
    IF NEW.state IS DISTINCT FROM OLD.state THEN
        NEW.state_since := now();
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER update_accounts_updated_at
    BEFORE UPDATE ON accounts
    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

-- With its owner's rights: nobody may write the history in another way.
CREATE OR REPLACE FUNCTION record_account_state() RETURNS TRIGGER
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_from TEXT;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        v_from := OLD.state;
    END IF;
    IF v_from IS DISTINCT FROM NEW.state THEN
        INSERT INTO public.account_state_transitions (account_id, from_state, to_state, reason)
        VALUES (NEW.id, v_from, NEW.state, NEW.last_error ->> 'code');
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER record_account_state
    AFTER INSERT OR UPDATE OF state ON accounts
    FOR EACH ROW EXECUTE FUNCTION record_account_state();

CREATE OR REPLACE FUNCTION refuse_change() RETURNS TRIGGER
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% is append only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;

-- For each statement, so that it refuses superusers and a TRUNCATE as well.
CREATE OR REPLACE TRIGGER audit_log_is_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- ------------------------------------------------------------------------------------- functions

-- Where an account is, or else where there is most room. p_account_id is accounts.id.
CREATE OR REPLACE FUNCTION get_instance_for_account(p_account_id BIGINT, p_instance_type TEXT)
RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT i.instance_id
    FROM public.instance_registry i
    WHERE i.instance_type IN (p_instance_type, 'hybrid')
      AND i.health_status = 'healthy'
      AND i.last_heartbeat > now() - INTERVAL '5 minutes'
    ORDER BY p_account_id = ANY (i.assigned_accounts) DESC,
             i.active_connections,
             i.memory_usage NULLS LAST,
             i.instance_id
    LIMIT 1
$$;

-- The two below run with the owner's rights, since only an owner may make or drop partitions, and
-- take one lock, since every replica's worker may call them at the same minute.

CREATE OR REPLACE FUNCTION ensure_request_log_partitions(p_days_ahead INTEGER DEFAULT 7)
RETURNS INTEGER
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
    v_today CONSTANT DATE := (now() AT TIME ZONE 'UTC')::date;
    v_day DATE;
    v_from TIMESTAMPTZ;
    v_to TIMESTAMPTZ;
    v_name TEXT;
    v_made INTEGER := 0;
BEGIN
    IF p_days_ahead IS NULL OR p_days_ahead NOT BETWEEN 0 AND 366 THEN
        RAISE EXCEPTION 'days ahead must be 0 to 366, not %', p_days_ahead
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('public.api_request_logs'));
    FOR i IN 0..p_days_ahead LOOP
        v_day := v_today + i;
        v_from := v_day::timestamp AT TIME ZONE 'UTC';
        v_to := (v_day + 1)::timestamp AT TIME ZONE 'UTC';
        v_name := 'api_request_logs_' || to_char(v_day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass('public.' || v_name) IS NOT NULL;
        EXECUTE format('CREATE TABLE public.%I (LIKE public.api_request_logs INCLUDING ALL)', v_name);
        -- What the default partition has caught of that day would make the attachment fail.
        LOCK TABLE public.api_request_logs_default IN ACCESS EXCLUSIVE MODE;
        EXECUTE format(
            'WITH caught AS (DELETE FROM public.api_request_logs_default'
            ' WHERE created_at >= %L AND created_at < %L RETURNING *)'
            ' INSERT INTO public.%I SELECT * FROM caught', v_from, v_to, v_name);
        EXECUTE format(
            'ALTER TABLE public.api_request_logs ATTACH PARTITION public.%I'
            ' FOR VALUES FROM (%L) TO (%L)', v_name, v_from, v_to);
        EXECUTE format(
            'ALTER TABLE public.%1$I ENABLE ROW LEVEL SECURITY,'
            ' FORCE ROW LEVEL SECURITY', v_name);
        v_made := v_made + 1;
    END LOOP;
    RETURN v_made;
END
$$;
COMMENT ON FUNCTION ensure_request_log_partitions(INTEGER) IS
    'Makes the log''s partitions of today and the days after; returns how many were missing.';

CREATE OR REPLACE FUNCTION drop_request_log_partitions(p_keep_days INTEGER)
RETURNS INTEGER
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
    v_first DATE;
    v_name TEXT;
    v_dropped INTEGER := 0;
BEGIN
    IF p_keep_days IS NULL OR p_keep_days NOT BETWEEN 1 AND 36600 THEN
        RAISE EXCEPTION 'days to keep must be 1 to 36600, not %', p_keep_days
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    v_first := (now() AT TIME ZONE 'UTC')::date - p_keep_days;
    PERFORM pg_advisory_xact_lock(hashtext('public.api_request_logs'));
    FOR v_name IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'public.api_request_logs'::regclass
          AND c.relname ~ '^api_request_logs_[0-9]{8}$'
          AND to_date(right(c.relname, 8), 'YYYYMMDD') < v_first
    LOOP
        EXECUTE format('DROP TABLE public.%I', v_name);
        v_dropped := v_dropped + 1;
    END LOOP;
    DELETE FROM public.api_request_logs_default
    WHERE created_at < v_first::timestamp AT TIME ZONE 'UTC';
    RETURN v_dropped;
END
$$;
COMMENT ON FUNCTION drop_request_log_partitions(INTEGER) IS
    'Drops the log of days older than p_keep_days before today; returns how many partitions went.';

-- ------------------------------------------------------------------------------------------ view

-- One subquery for each count: a join would count every account once for each instance.
-- It runs with its reader's rights. mt5_app and mt5_worker would count only rows in their scope,
-- so it is for members of mt5_monitor, who see all rows, but only the columns counted here.
CREATE OR REPLACE VIEW monitoring_dashboard WITH (security_invoker = true) AS
SELECT
    i.instance_type,
    count(*) AS instance_count,
    sum(i.active_connections) AS total_connections,
    avg(i.cpu_usage) AS avg_cpu_usage,
    avg(i.memory_usage) AS avg_memory_usage,
    count(*) FILTER (WHERE i.health_status = 'healthy') AS healthy_instances,
    (SELECT count(*) FROM accounts a WHERE a.is_active) AS active_accounts,
    (SELECT count(*) FROM accounts a
     WHERE a.is_active AND EXISTS (
        SELECT FROM instance_registry r
        WHERE r.instance_type = i.instance_type
          AND r.last_heartbeat > now() - INTERVAL '5 minutes'
          AND a.id = ANY (r.assigned_accounts))) AS assigned_accounts
FROM instance_registry i
WHERE i.last_heartbeat > now() - INTERVAL '5 minutes'
GROUP BY i.instance_type;
COMMENT ON VIEW monitoring_dashboard IS
    'Live instances by type. active_accounts is the same in each row: all active accounts.';

-- ---------------------------------------------------------------------------------------- grants

REVOKE ALL ON
    accounts, account_state_transitions, websocket_subscriptions, instance_registry,
    terminal_events, audit_log, api_request_logs, api_request_logs_default, monitoring_dashboard
FROM PUBLIC, mt5_app, mt5_worker, mt5_monitor;
REVOKE ALL ON FUNCTION
    update_updated_at_column(), record_account_state(), refuse_change(),
    get_instance_for_account(BIGINT, TEXT), ensure_request_log_partitions(INTEGER),
    drop_request_log_partitions(INTEGER)
FROM PUBLIC, mt5_app, mt5_worker, mt5_monitor;

-- mt5_app answers a user's requests. What identifies a row is given once and never changed.
GRANT SELECT, DELETE,
    INSERT (uuid, account_id, user_id, login, server, encrypted_password, wrapped_key,
        encryption_key_id, websocket_enabled, api_enabled, state, last_login, metadata),
    UPDATE (login, server, encrypted_password, wrapped_key, encryption_key_id, websocket_enabled,
        api_enabled, is_active, state, last_error, last_login, metadata)
ON accounts TO mt5_app;
GRANT SELECT ON account_state_transitions, websocket_subscriptions TO mt5_app;
GRANT INSERT ON audit_log TO mt5_app;

-- mt5_worker holds terminals and streams. It logs in with stored passwords but replaces none.
GRANT SELECT, UPDATE (state, last_error, last_login, last_poll) ON accounts TO mt5_worker;
GRANT SELECT, INSERT (account_id, user_id, instance_id),
    UPDATE (last_heartbeat, disconnected_at, close_code, is_active)
ON websocket_subscriptions TO mt5_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON instance_registry TO mt5_worker;
GRANT SELECT, INSERT ON terminal_events TO mt5_worker;
GRANT INSERT ON audit_log, api_request_logs TO mt5_worker;
GRANT USAGE ON SEQUENCE api_request_logs_id_seq TO mt5_worker;
GRANT EXECUTE ON FUNCTION get_instance_for_account(BIGINT, TEXT),
    ensure_request_log_partitions(INTEGER), drop_request_log_partitions(INTEGER) TO mt5_worker;

GRANT SELECT (id, is_active) ON accounts TO mt5_monitor;
GRANT SELECT (instance_type, assigned_accounts, cpu_usage, memory_usage, active_connections,
    health_status, last_heartbeat) ON instance_registry TO mt5_monitor;
GRANT SELECT ON monitoring_dashboard TO mt5_monitor;

-- ---------------------------------------------------------------------------------- row security

DO $force$
DECLARE
    v_table REGCLASS;
BEGIN
    -- The log's partitions are reached through it, but a check finds every table under force.
    FOR v_table IN
        SELECT c.oid FROM pg_catalog.pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
          AND (c.relname IN ('accounts', 'account_state_transitions', 'websocket_subscriptions',
                'instance_registry', 'terminal_events', 'audit_log', 'api_request_logs')
            OR c.relname ~ '^api_request_logs_([0-9]{8}|default)$')
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', v_table);
    END LOOP;
END
$force$;

-- The settings are per transaction. After a commit they read as '' on a pooled connection, not as
-- missing: hence NULLIF, and a row that equals NULL is no row. So a statement without a WHERE
-- reaches what the transaction has named, and nothing where it has named nothing.

DROP POLICY IF EXISTS of_the_user ON accounts;
CREATE POLICY of_the_user ON accounts TO mt5_app
    USING (user_id = NULLIF(current_setting('app.user_id', true), '')::uuid)
    WITH CHECK (user_id = NULLIF(current_setting('app.user_id', true), '')::uuid);
DROP POLICY IF EXISTS of_the_account ON accounts;
CREATE POLICY of_the_account ON accounts TO mt5_worker
    USING (account_id = NULLIF(current_setting('app.account_id', true), ''))
    WITH CHECK (account_id = NULLIF(current_setting('app.account_id', true), ''));
DROP POLICY IF EXISTS counted ON accounts;
CREATE POLICY counted ON accounts FOR SELECT TO mt5_monitor USING (true);

-- The subquery is itself bound by the policies of accounts.
DROP POLICY IF EXISTS of_visible_accounts ON account_state_transitions;
CREATE POLICY of_visible_accounts ON account_state_transitions FOR SELECT TO mt5_app
    USING (account_id IN (SELECT a.id FROM accounts a));
DROP POLICY IF EXISTS of_the_trigger ON account_state_transitions;
CREATE POLICY of_the_trigger ON account_state_transitions FOR INSERT TO CURRENT_USER
    WITH CHECK (true);

DROP POLICY IF EXISTS of_the_user ON websocket_subscriptions;
CREATE POLICY of_the_user ON websocket_subscriptions FOR SELECT TO mt5_app
    USING (user_id = NULLIF(current_setting('app.user_id', true), '')::uuid);
DROP POLICY IF EXISTS of_the_account ON websocket_subscriptions;
CREATE POLICY of_the_account ON websocket_subscriptions TO mt5_worker
    USING (account_id IN (SELECT a.id FROM accounts a))
    WITH CHECK ((account_id, user_id) IN (SELECT a.id, a.user_id FROM accounts a));

DROP POLICY IF EXISTS of_no_user ON instance_registry;
CREATE POLICY of_no_user ON instance_registry TO mt5_worker USING (true) WITH CHECK (true);
DROP POLICY IF EXISTS counted ON instance_registry;
CREATE POLICY counted ON instance_registry FOR SELECT TO mt5_monitor USING (true);
DROP POLICY IF EXISTS of_no_user ON terminal_events;
CREATE POLICY of_no_user ON terminal_events TO mt5_worker USING (true) WITH CHECK (true);

-- Written and never read back by the roles that write them.
DROP POLICY IF EXISTS appended ON audit_log;
CREATE POLICY appended ON audit_log FOR INSERT TO mt5_app, mt5_worker WITH CHECK (true);
DROP POLICY IF EXISTS appended ON api_request_logs;
CREATE POLICY appended ON api_request_logs FOR INSERT TO mt5_worker WITH CHECK (true);

-- For the two partition functions, which work on the default partition as the owner.
DROP POLICY IF EXISTS of_the_functions ON api_request_logs_default;
CREATE POLICY of_the_functions ON api_request_logs_default TO CURRENT_USER
    USING (true) WITH CHECK (true);

SELECT ensure_request_log_partitions(7);

COMMIT;
