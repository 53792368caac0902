//! The UDP ports beside those of https, on which HTTP/3 is spoken, and how visitors learn of them.

use std::net::SocketAddr;

use http::HeaderValue;

use super::Settings;
use super::downstream::Secure;
use super::downstream::http3::{Part, lanes};
use super::listener::{BindError, Held, Shared};

/// Seconds for which a browser may keep in mind that HTTP/3 is here: a day, as servers of CDNs say.
const KNOWN_FOR: u32 = 86_400;

/// Takes the UDP ports of `https`, which was found for the addresses of the settings, in their order.
/// Those of a former process are in `held`; handles for the next one go to `kept`. Returns each worker's
/// part: none where HTTP/3 is not wanted.
pub fn take(
    settings: &Settings,
    https: &[SocketAddr],
    secure: Option<&Secure>,
    mut held: Vec<Held>,
    kept: &mut Vec<Held>,
) -> Result<Vec<Part>, BindError> {
    let workers = settings.workers.max(1);
    let mut parts: Vec<Part> = (0..workers).map(|_| Part::default()).collect();
    let Some(secure) = secure.filter(|_| settings.http3) else { return Ok(parts) };
    let mut spoken = Vec::new();
    for (wanted, address) in settings.https.iter().zip(https) {
        if settings.preambles.contains(wanted) {
            // Whoever forwards bytes with a preamble forwards no packets.
            continue;
        }
        let failed = |source| BindError::Udp(Box::new(BindError::of(*address, source)));
        let ours = held.extract_if(.., |held| held.wanted == *wanted);
        let ours = ours.filter_map(|held| match held.socket {
            Shared::Udp(socket) => Some(socket),
            Shared::Tcp(_) => None,
        });
        let found = lanes(*address, workers, ours.collect(), secure, &settings.limits);
        for (index, (lane, socket)) in found.map_err(failed)?.into_iter().enumerate() {
            kept.push(Held { wanted: *wanted, secure: true, socket: Shared::Udp(socket) });
            parts[index % workers].lanes.push(lane);
        }
        spoken.push(*address);
    }
    let said = spoken.is_empty().then_some(None);
    let said = said.unwrap_or_else(|| alt_svc(super::https_port(&spoken)));
    for part in &mut parts {
        part.alt_svc.clone_from(&said);
    }
    Ok(parts)
}

fn alt_svc(port: u16) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("h3=\":{port}\"; ma={KNOWN_FOR}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitors_are_told_the_http3_port() {
        assert_eq!(alt_svc(443).expect("a value"), "h3=\":443\"; ma=86400");
    }
}
