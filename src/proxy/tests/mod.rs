//! Stories of the data plane, told with real sockets.

mod support;

mod basics;
mod edge;
mod failures;
mod gate;
mod life;
mod lines;
mod logs;
mod protocols;
mod secure;
mod sides;
