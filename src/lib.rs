//! Ordermill, the command: everything on one machine, or one part of it in a process of its own.

pub mod cli;
pub mod connections;
pub mod dlq;
mod flood;
pub mod logging;
pub mod metrics_endpoint;
pub mod order;
mod payments_commands;
mod printable;
mod relay_commands;
pub mod replay;
pub mod services;
pub mod stack_file;
pub mod up;
pub mod verify;
