-- The Kafka key of a message that is not ours stands in a column of its own: nothing waits by it, and it may be longer than
-- the index of the keys by which messages wait can hold.
ALTER TABLE dead_letter ADD COLUMN foreign_record_key bytea;
UPDATE dead_letter SET foreign_record_key = record_key, record_key = NULL WHERE code = 'FOREIGN';
