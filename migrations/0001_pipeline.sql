-- The tables of the pipeline: the event log, who has published and consumed how much of it, dead letters.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;

-- Fails unless each part of a statement has written as many rows as it must; tells how many each has.
CREATE FUNCTION require_rows(written bigint[], wanted bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF written <> wanted THEN
        RAISE EXCEPTION USING ERRCODE = 'OM001', MESSAGE = array_to_string(written, ',');
    END IF;
END $$;

-- The words of the log: topics, types of events, actors. The log has their codes.
CREATE TABLE log_word (
    code smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    word text     NOT NULL UNIQUE
);

-- The append-only log of every change, which is the outbox as well. Read it through the view event_log.
--
-- A row is a segment: the events that one statement writes, a column an array with an element for each of them. A row for
-- each event would cost the server four times as much. An array that has nothing to say is absent.
--
-- The order of the first two columns matters: defaults are computed in column order, so a writer has a
-- transaction id before it draws a number. The relay's cut (docs/adr/0002) rests on that.
CREATE TABLE log_segment (
    xid             xid8        NOT NULL DEFAULT pg_current_xact_id(),
    -- The position of an event is this number, and in its last five digits the event's ordinal in the segment, from 1.
    number          bigint      GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    at              timestamptz NOT NULL,
    -- How many events it has.
    events          integer     NOT NULL,
    -- By what its events are found: what they belong to, and the stretches of histories that they are of (`stretch` in
    -- the program's log.rs).
    about           uuid[]     COMPRESSION lz4 NOT NULL,
    event_id        uuid[]     COMPRESSION lz4 NOT NULL,
    aggregate_id    uuid[]     COMPRESSION lz4 NOT NULL,
    sequence        integer[]  COMPRESSION lz4 NOT NULL,
    topic           smallint[] COMPRESSION lz4 NOT NULL,
    type            smallint[] COMPRESSION lz4 NOT NULL,
    version         smallint[] COMPRESSION lz4 NOT NULL,
    partition       smallint[] COMPRESSION lz4 NOT NULL,
    -- Where it is not the aggregate's id.
    key             uuid[]     COMPRESSION lz4,
    -- The nil UUID where it is the aggregate's id.
    correlation_id  uuid[]     COMPRESSION lz4,
    -- The event that caused each.
    cause_id        uuid[]     COMPRESSION lz4,
    actor           smallint[] COMPRESSION lz4 NOT NULL,
    -- Of a user, who.
    actor_id        uuid[]     COMPRESSION lz4,
    -- Which HTTP request wrote it: its id, as in `X-Request-Id`. Its idempotency key is the client's own text, and is not kept here.
    request_id      uuid[]     COMPRESSION lz4,
    -- The spans that they happened in: of each 25 bytes, the trace id, span id and flags of a W3C traceparent.
    trace           bytea      COMPRESSION lz4 NOT NULL,
    data            bytea[]    COMPRESSION lz4 NOT NULL,
    -- The Kafka key where it is not the text of the key: that of a record that was not ours.
    record_key      bytea[]    COMPRESSION lz4,
    -- Further Kafka headers, for dead letters: an array of {name, value}.
    headers         jsonb[]    COMPRESSION lz4,
    CHECK (events BETWEEN 1 AND 99999 AND events = cardinality(event_id))
);
-- What is found by it is looked for seldom and written all the time, so entries are gathered before they are sorted in.
CREATE INDEX log_segment_about ON log_segment USING gin (about);

-- Nothing asks for a segment by what its arrays have: to sample them took the server longer than any other table. And they stay in
-- the row where it fits into a page: out of line, each two kilobytes are a row and an index entry more.
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT attname FROM pg_attribute
        WHERE attrelid = 'log_segment'::regclass AND attnum > 0 AND attcompression = 'l'
    LOOP
        EXECUTE format('ALTER TABLE log_segment ALTER %I SET STATISTICS 0, ALTER %1$I SET STORAGE MAIN', name);
    END LOOP;
END $$;

CREATE TRIGGER log_segment_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON log_segment
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The log event by event, in words. Whoever looks for few of them says so by segment or by what the segment is about. Whoever reads
-- payloads as JSON asks by code whether the topic is one of ours first: a word may be joined later than it is compared, and
-- what was put aside need not be JSON.
CREATE VIEW event_log AS
SELECT s.number * 100000 + e.ordinal AS position, e.event_id, topic.word AS topic, e.partition,
    coalesce(e.key, e.aggregate_id) AS key, e.record_key, e.aggregate_id, e.sequence, type.word AS type, e.version,
    CASE e.correlation_id WHEN '00000000-0000-0000-0000-000000000000' THEN e.aggregate_id ELSE e.correlation_id END
        AS correlation_id,
    e.cause_id, CASE WHEN e.actor_id IS NULL THEN actor.word ELSE actor.word || ':' || e.actor_id END AS actor,
    e.request_id,
    '00-' || encode(substr(s.trace, 25 * e.ordinal::integer - 24, 16), 'hex')
        || '-' || encode(substr(s.trace, 25 * e.ordinal::integer - 8, 8), 'hex')
        || '-' || encode(substr(s.trace, 25 * e.ordinal::integer, 1), 'hex') AS traceparent,
    s.at, e.data, e.headers, s.number AS segment, s.about, e.topic AS topic_code
FROM log_segment s
    CROSS JOIN LATERAL unnest(s.event_id, s.aggregate_id, s.sequence, s.topic, s.type, s.version, s.partition, s.key,
        s.correlation_id, s.cause_id, s.actor, s.actor_id, s.request_id, s.data, s.record_key, s.headers) WITH ORDINALITY
        AS e (event_id, aggregate_id, sequence, topic, type, version, partition, key, correlation_id, cause_id, actor,
            actor_id, request_id, data, record_key, headers, ordinal)
    JOIN log_word topic ON topic.code = e.topic
    JOIN log_word type ON type.code = e.type
    JOIN log_word actor ON actor.code = e.actor;

-- What happened to what, for whoever reads much of the log: fewer arrays are taken apart, which takes half the time. `topics`
-- are those of all events of the segment, so that one without a topic can be left out before it is taken apart.
CREATE VIEW event_history AS
SELECT s.number * 100000 + e.ordinal AS position, e.event_id, topic.word AS topic, e.partition,
    coalesce(e.key, e.aggregate_id) AS key, e.aggregate_id, e.sequence, type.word AS type, e.version, s.at, e.data,
    s.number AS segment, s.about, s.topic AS topics, e.topic AS topic_code
FROM log_segment s
    CROSS JOIN LATERAL unnest(s.event_id, s.aggregate_id, s.sequence, s.topic, s.type, s.version, s.partition, s.key, s.data)
        WITH ORDINALITY AS e (event_id, aggregate_id, sequence, topic, type, version, partition, key, data, ordinal)
    JOIN log_word topic ON topic.code = e.topic
    JOIN log_word type ON type.code = e.type;

-- The events above `after` up to `upto` in the log's order, at most `events_max`. No more segments are taken apart than that
-- takes.
CREATE FUNCTION log_page(after bigint, upto bigint, events_max bigint) RETURNS SETOF event_log LANGUAGE sql STABLE AS $$
    SELECT * FROM event_log
    WHERE segment >= after / 100000 AND position > after AND position <= upto AND segment <= (
        SELECT max(number) FROM (
            SELECT number, sum(events) OVER (ORDER BY number) - events AS before
            FROM (
                SELECT number, events FROM log_segment
                WHERE number >= after / 100000 AND number <= upto / 100000 ORDER BY number LIMIT events_max + 1
            ) AS next
        ) AS needed
        WHERE before < events_max + after % 100000)
    ORDER BY position LIMIT events_max
$$;

-- The highest position that can have been drawn; 0 where none was.
--
-- Not by reading the sequence like a table: while it writes ahead to the WAL, at every 32nd number, PostgreSQL shows
-- there for a moment a value of up to 32 numbers that nobody has drawn yet. A relay that believed it would cut the log
-- above positions still to be drawn, and never publish their events. The function waits for the page's lock instead.
CREATE FUNCTION event_log_end() RETURNS bigint LANGUAGE sql
    AS $$ SELECT coalesce(pg_sequence_last_value('log_segment_number_seq') * 100000 + 99999, 0) $$;

-- One row: who publishes, and how far it is.
CREATE TABLE relay_cursor (
    only_row          boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    era               integer     NOT NULL DEFAULT 1 CHECK (era > 0),
    -- Where the log ended when the era began. Labels of earlier eras above it name events that this log does not have.
    era_after         bigint      NOT NULL DEFAULT 0,
    -- Nothing up to here has been published in this era: 0 in the first one, since a log begins empty.
    published_after   bigint      NOT NULL DEFAULT 0,
    -- The era has begun here, but its topics are not known to be fresh yet. Nothing is published meanwhile.
    adopting          boolean     NOT NULL DEFAULT false,
    -- Of the database cluster that the era began in.
    system_identifier bigint      NOT NULL,
    -- How many partitions every topic has.
    partitions        smallint    NOT NULL CHECK (partitions > 0),
    -- Counts leaders; a former one can't move the cursor.
    epoch             bigint      NOT NULL DEFAULT 0,
    leader            text,
    lease_until       timestamptz NOT NULL DEFAULT '-infinity',
    -- When a leader last kept its lease while it published. Whoever prepares to lead, or tries in vain, holds the lease as well.
    led_at            timestamptz,
    -- Everything up to here was acknowledged by Kafka.
    position          bigint      NOT NULL DEFAULT 0,
    -- Of that, the last record of each partition, with its offset where that is known:
    -- {topic: [[position, offset] of partition 0, ...]}.
    tails             jsonb       NOT NULL DEFAULT '{}',
    -- Everything above this position is asked to be published again, by a consumer that misses records or by an operator.
    repeat_after      bigint,
    -- Of which topics everything above repeat_after is asked for; null for all of them.
    repeat_topics     text[]
);

-- What was last in each partition up to some positions of the log, as `tails` of the cursor was there. Nothing comes to lie below them any
-- more, so a relay that goes back reads the log from the one before on. It is written with the cursor, and may be lost with that.
CREATE TABLE relay_checkpoint (
    position bigint PRIMARY KEY,
    tails    jsonb  NOT NULL
);

-- Where Kafka has put the events of the log's segments. The relay writes it with its cursor, and may lose it with that.
CREATE TABLE log_place (
    number  bigint   PRIMARY KEY,
    -- Of each event, in the order of the segment, its offset; -1, or nothing at the end, where that is not known.
    offsets bigint[] COMPRESSION lz4 NOT NULL
);
ALTER TABLE log_place ALTER offsets SET STATISTICS 0;

-- The keys by which records are authentic. What they are made of is not here: they derive from a secret that is in a file.
CREATE TABLE wire_key (
    -- <era>-<number>-<16 random hexadecimal digits>, as records name it.
    id           text        PRIMARY KEY CHECK (id ~ '^[1-9][0-9]{0,9}-[1-9][0-9]{0,9}-[0-9a-f]{16}$'),
    -- By what the secret is told from which it derives; null where no more is known of the key than that it is revoked.
    secret       bytea       CHECK (octet_length(secret) = 8),
    created_at   timestamptz NOT NULL,
    -- What it has signed lies above this position of the log.
    signed_after bigint      NOT NULL,
    -- Since when it signs nothing more. What it has signed is authentic still.
    retired_at   timestamptz,
    -- Since when nothing that it has signed is authentic.
    revoked_at   timestamptz,
    CHECK (revoked_at IS NULL OR retired_at IS NOT NULL),
    CHECK (secret IS NOT NULL OR revoked_at IS NOT NULL)
);
-- One key signs.
CREATE UNIQUE INDEX wire_key_signs ON wire_key ((true)) WHERE retired_at IS NULL;

-- How far each group is in each partition.
CREATE TABLE consumer_offset (
    group_name     text        NOT NULL,
    topic          text        NOT NULL,
    partition      smallint    NOT NULL,
    -- Counts owners; a former one can't move the offset.
    epoch          bigint      NOT NULL DEFAULT 0,
    next_offset    bigint      NOT NULL DEFAULT 0 CHECK (next_offset >= 0),
    -- The label of the last record that was applied or passed over.
    label_era      integer     NOT NULL DEFAULT 0,
    label_position bigint      NOT NULL DEFAULT 0,
    -- The last record before next_offset that was the relay's: its label, lower than the above where it was a repeat, and
    -- its offset. By it the partition is known again. Behind it lies only what is foreign.
    tip_era        integer,
    tip_position   bigint,
    tip_offset     bigint,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (group_name, topic, partition)
) WITH (fillfactor = 50);

-- Messages that a group could not apply, or that wait behind one.
CREATE TABLE dead_letter (
    dead_letter_id     uuid        PRIMARY KEY,
    -- The order in which messages were put aside; within a key it is the order of the key.
    ordinal            bigint      GENERATED ALWAYS AS IDENTITY (CACHE 1),
    group_name         text        NOT NULL,
    topic              text        NOT NULL,
    partition          smallint    NOT NULL,
    record_offset      bigint      NOT NULL,
    record_key         bytea,
    -- The Kafka key of a message that is not ours: nothing waits by it, and it may be longer than the index of the keys
    -- by which messages wait can hold.
    foreign_record_key bytea,
    headers            jsonb       NOT NULL,
    payload            bytea,
    -- Whether its MAC did fit when it was read. It fits no more once the letter is edited.
    authentic          boolean     NOT NULL,
    -- The payload as it came, where somebody has edited it since.
    original_payload   bytea,
    edited             boolean     NOT NULL DEFAULT false,
    -- The event that could not be applied, as its headers say.
    event_type         text,
    event_id           uuid,
    correlation_id     uuid,
    -- A message that only waits has not failed.
    code               text,
    error              text,
    attempts           integer     NOT NULL,
    first_failed_at    timestamptz,
    last_failed_at     timestamptz,
    state              text        NOT NULL DEFAULT 'PARKED'
        CHECK (state IN ('PARKED', 'WAITING', 'REPLAYED', 'RESOLVED', 'DISCARDED')),
    -- What became of it: when, by which replay (by none where it was released), and whether it changed anything.
    resolved_at        timestamptz,
    resolved_by        uuid,
    had_effect         boolean,
    CONSTRAINT dead_letter_failed_says_how CHECK (
        (attempts > 0) = (code IS NOT NULL) AND (attempts > 0) = (error IS NOT NULL)
        AND (attempts > 0) = (first_failed_at IS NOT NULL) AND (attempts > 0) = (last_failed_at IS NOT NULL)),
    CONSTRAINT dead_letter_parked_has_failed CHECK (state NOT IN ('PARKED', 'REPLAYED') OR attempts > 0),
    CONSTRAINT dead_letter_resolved_says_what CHECK (
        (state = 'RESOLVED') = (resolved_at IS NOT NULL) AND (state = 'RESOLVED') = (had_effect IS NOT NULL)),
    CONSTRAINT dead_letter_edited_keeps_the_original CHECK (edited OR original_payload IS NULL)
);
-- Privileges know no former values: whoever may edit a letter could otherwise say that it came so.
CREATE FUNCTION keep_original() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT new.edited OR new.original_payload
        IS DISTINCT FROM (CASE WHEN old.edited THEN old.original_payload ELSE old.payload END)
    THEN
        RAISE EXCEPTION 'a letter keeps what it was';
    END IF;
    RETURN new;
END $$;
CREATE TRIGGER dead_letter_keeps_the_original BEFORE UPDATE OF payload, original_payload, edited ON dead_letter
    FOR EACH ROW WHEN ((new.payload, new.original_payload, new.edited)
        IS DISTINCT FROM (old.payload, old.original_payload, old.edited)) EXECUTE FUNCTION keep_original();
CREATE INDEX dead_letter_group ON dead_letter (group_name, topic, dead_letter_id);
CREATE UNIQUE INDEX dead_letter_ordinal ON dead_letter (ordinal);
-- What waits behind a letter, in order.
CREATE INDEX dead_letter_key ON dead_letter (group_name, topic, record_key, ordinal)
    WHERE state IN ('PARKED', 'WAITING', 'REPLAYED');
CREATE INDEX dead_letter_event ON dead_letter (event_id) WHERE event_id IS NOT NULL;
CREATE INDEX dead_letter_order ON dead_letter (correlation_id) WHERE correlation_id IS NOT NULL;
CREATE INDEX dead_letter_state ON dead_letter (state, dead_letter_id);

-- The keys of which a group applies nothing: later messages of them wait. Whoever decides about such a key locks its row.
CREATE TABLE parked_key (
    group_name     text    NOT NULL,
    topic          text    NOT NULL,
    record_key     bytea   NOT NULL,
    -- The letter that the others wait behind.
    dead_letter_id uuid    NOT NULL REFERENCES dead_letter,
    -- The letter is done with, and what waits is being applied.
    releasing      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (group_name, topic, record_key)
);
CREATE INDEX parked_key_letter ON parked_key (dead_letter_id);
CREATE INDEX parked_key_releasing ON parked_key (group_name, topic, record_key) WHERE releasing;

-- Replays of dead letters. What is selected is fixed when the replay is asked for.
CREATE TABLE dead_letter_replay (
    replay_id       uuid        PRIMARY KEY,
    dry_run         boolean     NOT NULL,
    rate_per_second integer     CHECK (rate_per_second > 0),
    selected        integer     NOT NULL CHECK (selected >= 0),
    requested_by    text        NOT NULL,
    requested_at    timestamptz NOT NULL,
    -- When the next letter may be taken, where there is a rate.
    next_at         timestamptz NOT NULL
);
CREATE TABLE dead_letter_replay_item (
    replay_id      uuid        NOT NULL REFERENCES dead_letter_replay,
    ordinal        integer     NOT NULL,
    dead_letter_id uuid        NOT NULL REFERENCES dead_letter,
    group_name     text        NOT NULL,
    verdict        text        CHECK (verdict IN ('APPLIED', 'ALREADY_APPLIED', 'FAILED_AGAIN', 'WAITING')),
    detail         text,
    decided_at     timestamptz,
    PRIMARY KEY (replay_id, ordinal),
    UNIQUE (replay_id, dead_letter_id),
    CHECK ((verdict IS NULL) = (decided_at IS NULL))
);
CREATE INDEX dead_letter_replay_item_letter ON dead_letter_replay_item (dead_letter_id);
CREATE INDEX dead_letter_replay_item_open ON dead_letter_replay_item (group_name, replay_id, ordinal)
    WHERE verdict IS NULL;

-- What people have done to dead letters.
CREATE TABLE dead_letter_audit (
    audit_id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at             timestamptz NOT NULL,
    actor          text        NOT NULL,
    action         text        NOT NULL CHECK (action IN ('EDITED', 'DISCARDED', 'REPLAY_REQUESTED', 'RESUMED')),
    dead_letter_id uuid        REFERENCES dead_letter,
    replay_id      uuid        REFERENCES dead_letter_replay,
    group_name     text,
    detail         jsonb       NOT NULL
);
CREATE INDEX dead_letter_audit_letter ON dead_letter_audit (dead_letter_id) WHERE dead_letter_id IS NOT NULL;
CREATE INDEX dead_letter_audit_replay ON dead_letter_audit (replay_id) WHERE replay_id IS NOT NULL;
CREATE TRIGGER dead_letter_audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON dead_letter_audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Groups that have stopped because too much of what they read can't be applied.
CREATE TABLE halted_group (
    group_name      text        PRIMARY KEY,
    halted_at       timestamptz NOT NULL,
    reason          text        NOT NULL,
    resumed_at      timestamptz,
    -- Failures until then don't halt the group again: somebody has looked at them.
    unchecked_until timestamptz
);

-- What processes tell of their relays and workers, for readiness. All times are those of the database. Unlogged: nobody waits for the disk, and
-- after a crash there are new signs within two seconds.
CREATE UNLOGGED TABLE heartbeat (
    instance      text        NOT NULL,
    role          text        NOT NULL,
    -- When this was written.
    at            timestamptz NOT NULL,
    -- When the role's loop came round last; of several the one that has not for longest.
    turned_at     timestamptz NOT NULL DEFAULT now(),
    -- Since when what it does has not worked, and what.
    failing_since timestamptz,
    failure       text,
    -- Of a member that is to meet the canaries of its group: when it met one last, or has waited for one since.
    canary_at     timestamptz,
    -- Of the leading relay: since when it sends canaries, as nothing else moves.
    quiet_since   timestamptz,
    PRIMARY KEY (role, instance)
) WITH (fillfactor = 50);
