//! Any bytes as a record: its labels, its headers, and whether the relay has signed it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ordermill_schemas::Event;

fuzz_target!(|record: &[u8]| ordermill_pipeline::fuzzing::record::<Event>(record));
