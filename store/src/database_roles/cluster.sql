-- The roles of a shop. They belong to the cluster, so every database of it may come here first, several at once. None can log in:
-- who works as one is a user who is a member of it, made by hand:
--     CREATE USER shop_api PASSWORD '...' IN ROLE ordermill_api;
--
-- To be run in the shop's database, migrated, by whoever may make roles. What is in braces stands for the names of roles.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY string_to_array('{all}', ', ') LOOP
        IF to_regrole(name) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                -- Another database was faster.
                NULL;
            END;
        END IF;
    END LOOP;
END $$;

-- Operators own the schema of the shadow, which the owner of the tables makes. To hand it over, and to take it back, the owner is one of
-- them.
DO $$
DECLARE
    owner regrole := (SELECT relowner FROM pg_class WHERE oid = 'public.log_segment'::regclass);
BEGIN
    IF NOT pg_has_role(owner::oid, 'ordermill_operator'::name, 'USAGE') THEN
        EXECUTE format('GRANT ordermill_operator TO %s', owner);
    END IF;
EXCEPTION WHEN unique_violation THEN
    NULL;
END $$;

-- Operators see which transaction of whomever holds the relay up (`ordermill relay status`). Only some may grant that; `ordermill roles` tells
-- where it is not granted.
DO $$
BEGIN
    IF NOT pg_has_role('ordermill_operator'::name, 'pg_read_all_stats'::name, 'USAGE') THEN
        GRANT pg_read_all_stats TO ordermill_operator;
    END IF;
EXCEPTION WHEN unique_violation OR insufficient_privilege THEN
    NULL;
END $$;
