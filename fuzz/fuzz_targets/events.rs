//! Any bytes as the payload of an event, of every type and version.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ordermill_schemas::{CATALOGUE, Event};

fuzz_target!(|payload: &[u8]| {
    let types = CATALOGUE.iter().map(|known| (known.name, known.version));
    ordermill_pipeline::fuzzing::event::<Event>(types, payload);
});
