//! Any bytes as the cursor of a page.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|cursor: &[u8]| ordermill_api::fuzzing::cursor(cursor));
