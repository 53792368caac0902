//! `tester-cookie`: a cookie that lets its holder choose a side.

use std::time::{SystemTime, UNIX_EPOCH};

use super::args::tester::TesterCookie;
use super::exit::{Exit, Failure};
use super::output;
use crate::config::load::{environment, load, locate};
use crate::proxy::tester;

/// Runs the verb.
pub(super) fn run(args: &TesterCookie) -> Result<Exit, Failure> {
    let variables = environment();
    let path = locate(args.source.config.as_deref(), &variables)?;
    let parsed = load(&path, &variables, &args.source.settings)?;
    let name = &args.service.0;
    let Some(service) = parsed.config.service(name) else {
        let sentence = format!("{} has no service {name}", path.display());
        return Err(Failure::new(Exit::Error, sentence));
    };
    let Some(secret) = &service.settings.tester_secret else {
        let sentence =
            format!("nobody may choose a side of {name}: set `tester_secret` in [service.{name}]");
        return Err(Failure::new(Exit::Error, sentence));
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let until = now.saturating_add(args.lifetime).as_secs();
    let value = tester::sign(secret, args.side, until);
    output::data(&format!("{}={value}", tester::COOKIE))?;
    Ok(Exit::Done)
}
