//! Any bytes as a callback of the payment gateway: the header with its signature, and its body.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|callback: &[u8]| ordermill_api::fuzzing::callback(callback));
