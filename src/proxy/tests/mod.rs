//! Stories of the data plane, told with real sockets.

mod support;

mod basics;
