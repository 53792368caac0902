//! The configuration is read again: what is new begins, what is gone ends, the rest goes on.

use std::collections::BTreeMap;

use super::driver::Driver;
use super::handle::Refused;
use super::journal::{Happening, Kind};
use super::settings::route_texts;
use crate::config::Service as ServiceConfig;
use crate::model::id::ServiceName;
use crate::telemetry::metrics::{self, count};

impl Driver {
    pub(super) fn reload_config(&mut self) -> Result<String, Refused> {
        match (self.reload)() {
            Err(sentence) => {
                self.daemon.reload_refused = true;
                count(&metrics::RELOADS, &[("result", "failure")]);
                self.config_note = Some(format!("the configuration was not reloaded: {sentence}"));
                let message = format!("configuration refused, the running one stays: {sentence}");
                self.tell_all(Kind::Config, message);
                Err(Refused::Invalid(sentence))
            }
            Ok((configs, also)) => {
                self.daemon.reload_refused = false;
                self.daemon.configured = format!("{:.3}", jiff::Timestamp::now());
                count(&metrics::RELOADS, &[("result", "success")]);
                self.config_note = None;
                self.configured = configs;
                let containers = std::mem::take(&mut self.labels.containers);
                self.labels.take(&containers, &self.configured);
                let wanted = self.wanted();
                let sentence = self.reconfigure(wanted);
                let sentence =
                    if also.is_empty() { sentence } else { format!("{sentence}; {also}") };
                self.tell_all(Kind::Config, format!("configuration reloaded: {sentence}"));
                Ok(sentence)
            }
        }
    }

    pub(super) fn tell_all(&mut self, kind: Kind, message: String) {
        self.journal.tell(Happening { kind, service: None, rollout: None, phase: None, message });
    }

    pub(super) fn reconfigure(&mut self, configs: Vec<ServiceConfig>) -> String {
        let mut said = Vec::new();
        let wanted: BTreeMap<ServiceName, ServiceConfig> =
            configs.into_iter().map(|config| (config.name.clone(), config)).collect();
        let gone: Vec<ServiceName> =
            self.services.keys().filter(|name| !wanted.contains_key(name)).cloned().collect();
        for name in gone {
            said.push(format!("{name} removed"));
            self.remove_service(&name);
        }
        for (name, config) in wanted {
            match self.services.get_mut(&name) {
                None => {
                    said.push(format!("{name} added"));
                    self.add_service(config);
                    self.start_if_new(&name);
                }
                Some(service) if service.config != config => {
                    let relaunch = service.config.template != config.template;
                    service.config = config.clone();
                    service.routes = route_texts(&config);
                    self.fleet.set_service(&name, config.routes, config.settings, config.policy);
                    said.push(if relaunch {
                        format!(
                            "{name} changed; what it runs changes with `switchback deploy {name}`"
                        )
                    } else {
                        format!("{name} changed")
                    });
                }
                Some(_) => {}
            }
        }
        self.watch_runtimes();
        self.fleet.publish();
        if said.is_empty() { "no service changed".to_owned() } else { said.join(", ") }
    }
}
