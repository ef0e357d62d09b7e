-- The highest position that was ever drawn; 0 where none was.
--
-- Not by reading the sequence like a table: while it writes ahead to the WAL, at every 32nd position, PostgreSQL shows
-- there for a moment a value of up to 32 positions that nobody has drawn yet. A relay that believed it would cut the log
-- above positions still to be drawn, and never publish their rows. The function waits for the page's lock instead.
CREATE FUNCTION event_log_end() RETURNS bigint LANGUAGE sql
    AS $$ SELECT coalesce(pg_sequence_last_value('event_log_position_seq'), 0) $$;
