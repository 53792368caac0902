//! Stories of the data plane, told with real sockets.

pub(crate) mod anyone;
pub(crate) mod support;

mod advisories;
mod announced;
mod asked;
mod basics;
mod counting;
mod edge;
mod failures;
mod files;
mod gate;
mod gathered;
mod grpc_web;
mod killed;
mod large;
mod life;
mod lines;
mod logs;
mod mirror;
mod plain;
pub(crate) mod protocols;
mod quotas;
mod rules;
pub(crate) mod secure;
mod send_file;
mod shield;
mod sides;
mod smaller;
mod stalled;
mod streams;
