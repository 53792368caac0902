//! `/api/v1/events`: what happens, as server-sent events.
//!
//! A stream begins after the id that a client has seen (`Last-Event-ID`, or `?after=`), first with
//! what is still remembered, then with what follows. Invariants: ids rise within a stream; nothing is
//! left out in silence (a client that is too late, or too slow, gets `event: lagged` and how many it
//! missed; one that knows ids of a daemon that is gone gets `event: restarted`); nothing is buffered
//! for a client beyond the driver's own memory, and the streams end when the daemon stops.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use utoipa::IntoParams;

use super::api::{AppState, Asked};
use super::problem::{Kind, Problem};
use crate::controller::status::EventRecord;

/// How often a silent stream shows that it lives: the HTML standard's advice for proxies that drop
/// silent connections ("every 15 seconds or so").
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// Which events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EventsQuery {
    /// Begin after this id; 0 begins with the oldest that is remembered. `Last-Event-ID` goes first.
    after: Option<u64>,
    /// Only those of this service.
    service: Option<String>,
    /// Only those of this rollout.
    rollout: Option<u64>,
    /// Go on with what follows (the default), or end after what is remembered.
    follow: Option<bool>,
}

/// What happens, as server-sent events. Each has an `id`, and an event record as its data.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(EventsQuery, ("Last-Event-ID" = Option<u64>, Header, description = "Resume after this id")),
    responses((status = 200, content_type = "text/event-stream", body = EventRecord),
        (status = 400, body = Problem)))]
pub(super) async fn events(
    State(state): State<AppState>,
    headers: HeaderMap,
    Asked(query): Asked<EventsQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let after = match headers.get("last-event-id") {
        Some(id) => {
            let number = id.to_str().ok().and_then(|text| text.trim().parse().ok());
            let bad = || Problem::new(Kind::Malformed, "Last-Event-ID is not the id of an event");
            Some(number.ok_or_else(bad)?)
        }
        None => query.after,
    };
    let feed = Feed::new(state, query, after);
    let stream = stream::unfold(feed, |mut feed| async move {
        let event = feed.next().await?;
        Some((Ok(event), feed))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(COMMENT_EVERY)))
}

/// One client's stream.
struct Feed {
    state: AppState,
    query: EventsQuery,
    /// What is to be sent before waiting.
    ready: VecDeque<Item>,
    receiver: Receiver<EventRecord>,
    /// The last id that was seen, sent or not.
    last: u64,
}

enum Item {
    Record(EventRecord),
    Missed(u64),
    Restarted,
}

impl Feed {
    fn new(state: AppState, query: EventsQuery, after: Option<u64>) -> Self {
        let (remembered, receiver) = state.handle.events_after(0);
        let newest = remembered.last().map_or(0, |event| event.id);
        let mut feed = Self { state, query, ready: VecDeque::new(), receiver, last: newest };
        match after {
            None => {}
            Some(after) if after > newest => {
                feed.ready.push_back(Item::Restarted);
                feed.remember(0, remembered);
            }
            Some(after) => feed.remember(after, remembered),
        }
        feed
    }

    /// Takes what is remembered after an id, and says how much is not.
    fn remember(&mut self, after: u64, remembered: Vec<EventRecord>) {
        let mut remembered = remembered.into_iter().filter(|event| event.id > after).peekable();
        // Who asks for everything asks for what there is.
        if let Some(first) = remembered.peek()
            && after > 0
            && first.id > after + 1
        {
            self.ready.push_back(Item::Missed(first.id - after - 1));
        }
        for event in remembered {
            self.last = self.last.max(event.id);
            if self.wants(&event) {
                self.ready.push_back(Item::Record(event));
            }
        }
    }

    fn wants(&self, event: &EventRecord) -> bool {
        let service = self.query.service.as_ref();
        service.is_none_or(|name| event.service.as_ref() == Some(name))
            && self.query.rollout.is_none_or(|rollout| event.rollout == Some(rollout))
    }

    /// The next event to send; `None` ends the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item.into_event());
            }
            if self.query.follow == Some(false) {
                return None;
            }
            let received = tokio::select! {
                () = self.state.shutdown.cancelled() => return None,
                received = self.receiver.recv() => received,
            };
            match received {
                Ok(event) if event.id <= self.last => {}
                Ok(event) => {
                    self.last = event.id;
                    if self.wants(&event) {
                        self.ready.push_back(Item::Record(event));
                    }
                }
                // What was missed may still be remembered.
                Err(RecvError::Lagged(_)) => {
                    let (remembered, receiver) = self.state.handle.events_after(self.last);
                    self.receiver = receiver;
                    self.remember(self.last, remembered);
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

impl Item {
    fn into_event(self) -> Event {
        match self {
            Self::Record(record) => {
                // A record is text and numbers, and serialises always.
                let data = serde_json::to_string(&record).unwrap_or_default();
                Event::default().id(record.id.to_string()).data(data)
            }
            Self::Missed(count) => {
                Event::default().event("lagged").data(format!("{{\"missed\":{count}}}"))
            }
            Self::Restarted => Event::default().event("restarted").data("{}"),
        }
    }
}
