//! New connections to instances, in the words that each expects.

use tokio::net::TcpStream;

use super::error::Failure;
use super::exchange::Exchange;
use super::route::Route;
use super::upstream::http2::Multiplexed;
use super::upstream::{announce, connect};
use super::worker::Worker;
use crate::routing::endpoint::Claim;
use crate::telemetry::traffic::Count;

/// A connection that all requests of this worker to an endpoint share.
pub async fn multiplex(
    worker: &Worker,
    route: &Route,
    claim: &Claim,
    exchange: &Exchange,
) -> Result<Multiplexed, Failure> {
    let stream = dial(worker, route, claim, exchange).await?;
    let connection = Multiplexed::new(stream).await?;
    worker.upstreams.share(claim.endpoint(), &connection);
    Ok(connection)
}

/// A connection to an endpoint, which knows by then who is at its other end if it wants to.
pub async fn dial(
    worker: &Worker,
    route: &Route,
    claim: &Claim,
    exchange: &Exchange,
) -> Result<TcpStream, Failure> {
    let endpoint = claim.endpoint();
    let connected = connect(endpoint, route.connect_timeout()).await;
    worker.count(match connected {
        Ok(_) => Count::UpstreamConnects,
        Err(_) => Count::UpstreamConnectFailures,
    });
    let mut stream = connected?;
    if !endpoint.preamble.is_none() {
        announce(&mut stream, endpoint, exchange.ends()).await?;
    }
    Ok(stream)
}
