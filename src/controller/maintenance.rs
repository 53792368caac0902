//! `maintenance`: a service's visitors are kept from it for a while, or made to wait.
//!
//! Nothing waits for the disk here, so that it can be said when the disk is full; it is written
//! nevertheless, because a restart is a usual part of what is being done.

use std::time::Duration;

use super::driver::Driver;
use super::handle::Refused;
use super::journal::Kind;
use super::service::Service;
use super::status::{MaintenanceRequest, ServiceStatus};
use crate::config::scalar;
use crate::edge::rules::Maintenance;
use crate::model::id::ServiceName;
use crate::store::records::MaintenanceRecord;

/// The longest that visitors may be made to wait: browsers and proxies before us give up by then.
const LONGEST: Duration = Duration::from_secs(300);
/// How many of them wait on each worker at a time.
const MOST: u32 = 1_000;

impl Driver {
    pub(super) fn maintain(
        &mut self,
        name: &ServiceName,
        request: &MaintenanceRequest,
    ) -> Result<ServiceStatus, Refused> {
        let on = request.on.ok_or_else(|| {
            Refused::Invalid("`on` is missing: send {\"on\": true} or {\"on\": false}".to_owned())
        })?;
        let queue = request.queue.as_deref().map(queue).transpose().map_err(Refused::Invalid)?;
        if !on && queue.is_some() {
            let sentence = "`queue` belongs to {\"on\": true}: who waits is let in by the end";
            return Err(Refused::Invalid(sentence.to_owned()));
        }
        self.known(name)?;
        let queue = queue.unwrap_or_default();
        let maintenance = on.then_some(Maintenance { queue, most: MOST });
        let message = match maintenance {
            Some(Maintenance { queue: Duration::ZERO, .. }) => {
                "maintenance begins: visitors are answered 503".to_owned()
            }
            Some(Maintenance { queue, .. }) => format!(
                "maintenance begins: visitors wait for up to {}, and are answered 503 then",
                scalar::show_duration(queue)
            ),
            None => "maintenance is over".to_owned(),
        };
        if let Some(service) = self.services.get_mut(name) {
            service.record.maintenance = maintenance.map(|maintenance| MaintenanceRecord {
                queue_millis: u64::try_from(maintenance.queue.as_millis()).unwrap_or(u64::MAX),
            });
        }
        let kept_out = self.services.get(name).and_then(Service::kept_out);
        self.fleet.maintain(name, kept_out);
        self.fleet.publish();
        self.tell(name, Kind::Note, message);
        self.save(name);
        self.publish_status();
        let status = self.known(name).map(|service| self.status_of(service, self.now()))?;
        Ok(status)
    }
}

/// What is written down, as the data plane takes it.
pub(super) fn meaning(record: &MaintenanceRecord) -> Maintenance {
    Maintenance { queue: Duration::from_millis(record.queue_millis), most: MOST }
}

fn queue(text: &str) -> Result<Duration, String> {
    let queue = scalar::duration(text).map_err(|expected| format!("queue {text:?}: {expected}"))?;
    if queue > LONGEST {
        let longest = scalar::show_duration(LONGEST);
        return Err(format!("queue {text:?}: visitors wait for {longest} at most"));
    }
    Ok(queue)
}
