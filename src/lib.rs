//! Ordermill, the command: everything on one machine, or one part of it in a process of its own.

mod arguments;
pub mod cli;
mod commands;
pub mod connections;
pub mod database;
mod kafka_security;
mod kafka_users;
pub mod logging;
pub mod metrics_endpoint;
mod one_line;
mod open_files;
mod output;
pub mod pools;
mod printable;
mod progress;
pub mod replay;
pub mod services;
pub mod shutdown;
pub mod stack_file;
pub mod verify;
