//! The deciders together, as the pipeline delivers to them.

mod properties;
mod table;
mod world;
