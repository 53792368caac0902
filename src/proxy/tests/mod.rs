//! Stories of the data plane, told with real sockets.

mod support;

mod basics;
mod edge;
mod failures;
mod killed;
mod life;
mod lines;
mod protocols;
mod secure;
mod shield;
mod sides;
