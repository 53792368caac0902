//! Whole files: what they mean, where values come from, and the commented example.

mod bad;
mod http3;
mod notify;
mod policy;

use super::*;
use crate::analysis::criteria::Unit;
use crate::model::revision::{ProbeKind, Source, UpstreamProtocol};
use crate::rollout::plan::{OnInconclusive, Plan};
use crate::routing::settings::{Affinity, ErrorRule, ServiceSettings};
use crate::routing::table::HostPattern;

use super::change::Change;
use super::keys::{Key, Shape, TOP};
use super::problem::Place;

/// Reads a file at `conf/switchback.toml`, beside which there are two env files.
fn read_with(text: &str, variables: &[(&str, &str)], flags: &[&str]) -> Result<Parsed, Problems> {
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let file = |path: &Path| match path.to_str() {
        Some("conf/web.env") => Ok("A=file\nB=file\n".to_owned()),
        Some("conf/office.txt") => {
            Ok("203.0.113.0/24 # the office\n\n# home\n2001:db8::7\n".to_owned())
        }
        Some("conf/users.htpasswd") => Ok("ann:$2y$05$x\n".to_owned()),
        Some("conf/bad.htpasswd") => Ok("ann:$2y$05$x\nbob:hunter2\n".to_owned()),
        Some("conf/bad.txt") => Ok("10.0.0.0/8\noffice\n".to_owned()),
        Some("conf/pages/404.html" | "conf/pages/5xx.html") => Ok("<h1>{status}</h1>".to_owned()),
        Some("conf/bad.env") => Ok("A=1\nPASSWORD hunter2\n".to_owned()),
        _ => Err("there is no such file".to_owned()),
    };
    let name = Path::new("conf/switchback.toml");
    parse(&Input { name, text, variables: &variables, flags: &flags, read: &file })
}

fn parsed(text: &str, variables: &[(&str, &str)], flags: &[&str]) -> Parsed {
    read_with(text, variables, flags).unwrap_or_else(|problems| panic!("{problems}"))
}

fn read(text: &str) -> Config {
    parsed(text, &[], &[]).config
}

/// The smallest service, for tests about something else.
const WEB: &str = "[service.web]\nhost = \"*\"\nimage = \"web\"\nport = 3000\n";

#[test]
fn the_smallest_file_has_the_defaults_of_the_contract() {
    let text = r#"
        [tls]
        cert = "certs/app.pem"
        key  = "certs/app.key"
        [service.web]
        host  = "app.example.com"
        image = "ghcr.io/acme/web"
        port  = 3000
    "#;
    let config = read(text);
    let listen = |text: &str| vec![text.parse::<SocketAddr>().expect("an address")];
    assert_eq!(config.listen.http, listen("0.0.0.0:80"));
    assert_eq!(config.listen.https, listen("0.0.0.0:443"));
    assert_eq!(config.listen.workers, 0);
    assert_eq!(config.admin.socket, Path::new("/run/switchback/admin.sock"));
    assert_eq!(config.admin.listen, listen("127.0.0.1:9900"));
    assert_eq!(config.state.dir, Path::new("/var/lib/switchback"));
    assert_eq!(config.runtime.docker, "unix:///var/run/docker.sock");
    let tls = config.tls.expect("certificates");
    assert_eq!(tls.certificates[0].cert, Path::new("conf/certs/app.pem"));
    let web = &config.services[0];
    assert_eq!(web.template.source, Source::Image("ghcr.io/acme/web".to_owned()));
    assert_eq!((web.template.port, web.template.replicas), (3000, 1));
    assert_eq!(web.plan, Plan::default());
    let settings = ServiceSettings { to_https: true, ..ServiceSettings::default() };
    assert_eq!(web.settings, settings);
    assert!(web.policy.is_empty());
    let host = HostPattern::Exact("app.example.com".to_owned());
    assert_eq!(web.routes, [Route { host, path: "/".to_owned() }]);
}

#[test]
fn every_key_means_what_it_says() {
    let config = read(
        r#"
        [listen]
        http = ["127.0.0.1:8080", "[::1]:8080"]
        workers = 3
        trusted_proxies = ["10.0.0.0/8", "::1"]
        max_target = "4KiB"
        [admin]
        listen = "0.0.0.0:9900"
        token = "0123456789abcdef"
        [log]
        format = "json"
        [service.web]
        host = ["a.example.com", "*.b.example.com"]
        path = ["/x/", "/y"]
        image = "web:v1"
        port = 3000
        replicas = 2
        protocol = "h2c"
        env = { B = "table", C = "" }
        env_file = "web.env"
        memory = "512MiB"
        cpus = 1.5
        pids = 100
        user = "1000"
        labels = { team = "shop" }
        args = ["serve"]
        volumes = ["data:/data", "/srv/x:/x:ro"]
        networks = "backbone"
        steps = "1% 100%"
        bake = "1m"
        bake_max = "1h30m"
        abort = "errors > 2%"
        on_inconclusive = "rollback"
        affinity = "header:X-User"
        errors = ["5xx", 429]
        route_errors = { "/search" = "5xx, 404 429" }
        ignore_routes = ["/search/health/", "/up"]
        warm_up = "1m"
        hold_back = "2.5%"
        fresh_baseline = true
        compare_instances = true
        record = true
        tester_secret = "0123456789abcdef"
        [service.web.probe]
        path = "/up"
        deadline = "90s"
        [service.api]
        host = "c.example.com"
        command = ["./api", "{port}"]
        affinity = "cookie"
        [service.api.probe]
        kind = "tcp"
        [service.old]
        host = "d.example.com"
        endpoints = "10.0.0.5:3000"
        "#,
    );
    assert_eq!(config.listen.http.len(), 2);
    assert!(config.listen.https.is_empty() && config.tls.is_none());
    assert_eq!(config.listen.limits.max_target, 4 << 10);
    assert_eq!(config.log.format, LogFormat::Json);
    let [web, api, old] = config.services.as_slice() else { panic!("three services") };
    assert_eq!(web.routes.len(), 4);
    assert_eq!(web.routes[3].host, HostPattern::Below("b.example.com".to_owned()));
    let spec = &web.template;
    assert_eq!((spec.replicas, spec.protocol), (2, UpstreamProtocol::H2c));
    let env: Vec<(&str, &str)> =
        spec.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(env, [("A", "file"), ("B", "table"), ("C", "")]);
    assert_eq!((spec.container.memory, spec.container.cpu_millis), (512 << 20, 1_500));
    assert_eq!(spec.container.networks, ["backbone"]);
    assert_eq!(spec.probe.kind, ProbeKind::Http { path: "/up".to_owned(), host: None });
    assert_eq!(web.plan.probe_deadline, Duration::from_secs(90));
    assert_eq!(web.plan.on_inconclusive, OnInconclusive::Rollback);
    assert_eq!(web.settings.affinity, Affinity::Header("x-user".to_owned()));
    assert_eq!((web.plan.criteria.unit, old.plan.criteria.unit), (Unit::Session, Unit::Request));
    assert_eq!(web.settings.errors, ErrorRule::of((500..600).chain([429])));
    let rule = |path: &str| web.settings.rule(web.settings.exception(path));
    assert_eq!(rule("/search/x"), Some(&ErrorRule::of((500..600).chain([404, 429]))));
    assert_eq!(
        (rule("/search/health"), rule("/up/a"), rule("/upper")),
        (None, None, Some(&web.settings.errors))
    );
    let Plan { hold_back, fresh_baseline, record, criteria, .. } = &web.plan;
    assert_eq!((hold_back.basis_points(), *fresh_baseline, *record), (250, true, true));
    assert_eq!((criteria.warm_up, criteria.compares_instances), (Duration::from_secs(60), true));
    assert_eq!((api.template.port, &api.template.probe.kind), (0, &ProbeKind::Tcp));
    assert_eq!(api.settings.affinity, Affinity::Cookie("switchback-api".to_owned()));
    let address = "10.0.0.5:3000".parse().expect("an address");
    assert_eq!(old.template.source, Source::Endpoints(vec![address]));
}

#[test]
fn a_flag_comes_before_a_variable_before_the_file() {
    let text = format!("[listen]\nhttp = \"127.0.0.1:1\"\n[state]\ndir = \"state\"\n{WEB}");
    let http = |variables: &[(&str, &str)], flags: &[&str]| {
        parsed(&text, variables, flags).config.listen.http[0].port()
    };
    assert_eq!(http(&[], &[]), 1);
    assert_eq!(http(&[("SWITCHBACK_LISTEN_HTTP", "127.0.0.1:2")], &[]), 2);
    let both = http(&[("SWITCHBACK_LISTEN_HTTP", "127.0.0.1:2")], &["listen.http=127.0.0.1:3"]);
    assert_eq!(both, 3);
    let config = parsed(
        &text,
        &[
            ("SWITCHBACK_STATE_DIR", "here"),
            ("SWITCHBACK_SERVICE_WEB_STEPS", "10% 100%"),
            ("SWITCHBACK_SERVICE_WEB_PROBE_RISE", "5"),
            ("SWITCHBACK_SERVICE_WEB_HOST", "a.example.com,b.example.com"),
            ("SWITCHBACK_SERVICE_WEB_CPUS", "0.5"),
            ("SWITCHBACK_LOG", "debug"),
            ("DOCKER_HOST", "tcp://10.0.0.9:2375"),
            ("PATH", "/bin"),
        ],
        &["service.web.errors=5xx,429", "service.web.args=[\"a b\", \"c\"]"],
    )
    .config;
    let web = &config.services[0];
    // What the file says is relative to the file, what a variable says is not.
    assert_eq!(config.state.dir, Path::new("here"));
    assert_eq!(read(&text).state.dir, Path::new("conf/state"));
    assert_eq!(web.plan.steps.to_string(), "10% 100%");
    assert_eq!(web.template.probe.rise, 5);
    assert_eq!(web.routes.len(), 2);
    assert_eq!(web.template.container.cpu_millis, 500);
    assert_eq!(web.template.container.args, ["a b", "c"]);
    assert!(web.settings.errors.is_error(429));
    assert_eq!(config.log.filter, "debug");
    assert_eq!(config.runtime.docker, "tcp://10.0.0.9:2375");
    let docker = format!("[runtime]\ndocker = \"unix:///x.sock\"\n{WEB}");
    let config = parsed(&docker, &[("DOCKER_HOST", "tcp://10.0.0.9:2375")], &[]).config;
    assert_eq!(config.runtime.docker, "unix:///x.sock");
}

#[test]
fn off_means_off() {
    let config = read(&format!(
        "[listen]\nhttp = \"off\"\nhttps = \"127.0.0.1:1\"\n[tls]\ncert = \"a\"\nkey = \"b\"\n[admin]\nlisten = \"off\"\n{WEB}"
    ));
    assert!(config.listen.http.is_empty() && config.admin.listen.is_empty());
    assert_eq!(config.listen.https.len(), 1);
}

#[test]
fn a_deploy_changes_the_source_and_nothing_else() {
    let config = read(
        "[service.web]\nhost = \"a\"\nimage = \"r:5000/web:v1\"\nport = 3000\n\
         [service.api]\nhost = \"b\"\ncommand = [\"x\", \"{port}\"]\n",
    );
    let [web, api] = config.services.as_slice() else { panic!("two services") };
    let source = |change| web.revision(change).map(|spec| spec.source.to_string());
    assert_eq!(source(Change::None).as_deref(), Ok("r:5000/web:v1"));
    assert_eq!(source(Change::Tag("v2".to_owned())).as_deref(), Ok("r:5000/web:v2"));
    assert_eq!(source(Change::Image("other".to_owned())).as_deref(), Ok("other"));
    assert!(source(Change::Tag("no tag".to_owned())).is_err());
    assert!(api.revision(Change::Tag("v2".to_owned())).is_err());
    assert!(api.revision(Change::Image("web".to_owned())).is_err_and(|said| said.contains("port")));
    assert!(api.revision(Change::Command(vec!["x".to_owned()])).is_err());
}

/// Every key with its path; services stand under `service.*`.
fn all_keys() -> Vec<(String, &'static Key)> {
    fn walk(prefix: &str, keys: &'static [Key], found: &mut Vec<(String, &'static Key)>) {
        for key in keys {
            let path = format!("{prefix}{}", key.name);
            found.push((path.clone(), key));
            let star = if matches!(key.shape, Shape::Named(_)) { ".*" } else { "" };
            walk(&format!("{path}{star}."), key.shape.keys().unwrap_or_default(), found);
        }
    }
    let mut found = Vec::new();
    walk("", TOP, &mut found);
    found
}

const EXAMPLE: &str = include_str!("../../../config/switchback.toml");

#[test]
fn the_commented_example_shows_every_key_with_its_default() {
    // As it stands, and with every commented line made a line.
    let as_it_stands = read(EXAMPLE);
    let bare: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') && !rest.is_empty() => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let (tree, problems) = raw::parse(&bare, 0);
    assert!(problems.is_empty(), "{problems:?}");
    parsed(&bare.replace("env_file = \"web.env\"", ""), &[], &[]);
    // What a route may say as well as its service stands with the service.
    let is_shared = |path: &str| {
        let rest = path.strip_prefix("service.*.route.").and_then(|rest| rest.split('.').next());
        rest.is_some_and(|name| keys::SERVICE.iter().any(|key| key.name == name))
            && !["host", "path", "connect_timeout", "response_timeout", "idle_timeout", "retries"]
                .contains(&rest.unwrap_or(""))
    };

    let prose: String = EXAMPLE
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .flat_map(|line| [line, " "])
        .collect();
    for (path, key) in all_keys() {
        assert!(prose.contains(key.doc), "{path} is described otherwise in config/switchback.toml");
        let file = path == "tls.cert" || path == "tls.key" || path.starts_with("tls.certificate.");
        // What plain TCP shares with a service is shown there.
        let shared = path.starts_with("tcp.*.probe.")
            || path.starts_with("tcp.") && keys::SERVICE.iter().any(|one| one.doc == key.doc);
        // Shown once: further tests and hooks have the same keys.
        let is_shown = [".smoke.", ".after_promote.", ".on_rollback."];
        let is_shown = is_shown.iter().any(|part| path.contains(part)) || is_shared(&path);
        // Not read here: shown in the prose.
        let told = path.starts_with("notify.*.");
        let from_a_file = told && (path.ends_with("_file") || path.ends_with(".ca"));
        if key.shape.keys().is_some() || file || shared || is_shown || from_a_file {
            continue;
        }
        let is_of_api = matches!(
            path.as_str(),
            "service.*.command" | "service.*.group" | "service.*.affinity_domain"
        );
        let service = if is_of_api { "api" } else { "web" };
        let service = if key.name == "endpoints" { "old" } else { service };
        let service = if path.starts_with("tcp.") { "db" } else { service };
        let service = match key.name {
            _ if !told => service,
            "token" | "chat" => "phone",
            "smtp" | "smtp_tls" | "user" | "password" | "from" | "to" => "mail",
            "secret" => "program",
            _ => "ops",
        };
        let parts: Vec<String> = path.replace('*', service).split('.').map(str::to_owned).collect();
        let (last, tables) = parts.split_last().expect("a key");
        // Of a list of tables, any may show a key.
        let mut found = vec![&tree];
        for name in tables {
            let nodes = found.iter().filter_map(|table| table.entry(name)).map(|entry| &entry.node);
            found = nodes
                .flat_map(|node| match &node.value {
                    raw::Value::List(nodes) => nodes.as_slice(),
                    _ => std::slice::from_ref(node),
                })
                .filter_map(|node| match &node.value {
                    raw::Value::Table(table) => Some(table),
                    _ => None,
                })
                .collect();
        }
        let entry = found.iter().find_map(|table| table.entry(last));
        let entry = entry.unwrap_or_else(|| panic!("{path} is not in config/switchback.toml"));
        let nowhere = Place { source: 0, span: 0..0 };
        if let Some(default) = raw::parse_value(key.default, &nowhere) {
            let shown = super::show::json_value(&entry.node.value, key.shape);
            assert_eq!(shown, super::show::json_value(&default.value, key.shape), "{path}");
        }
    }
    // Nothing that is commented out changes anything but what has no default.
    assert_eq!(as_it_stands.services[0].plan, Plan::default());
}

#[test]
fn every_default_is_valid_and_every_key_has_a_schema() {
    let schema = schema::schema();
    assert_eq!(schema["properties"]["listen"]["properties"]["http"]["default"], "0.0.0.0:80");
    let service = &schema["properties"]["service"]["additionalProperties"];
    assert_eq!(service["properties"]["bake"]["default"], "30s");
    assert_eq!(service["properties"]["replicas"]["minimum"], 1);
    assert_eq!(service["additionalProperties"], false);
    let nowhere = Place { source: 0, span: 0..0 };
    for (path, key) in all_keys() {
        assert!(!key.doc.is_empty() && key.doc.ends_with('.'), "{path}: {}", key.doc);
        let default = raw::parse_value(key.default, &nowhere);
        assert!(key.default.is_empty() || default.is_some(), "{path}: {}", key.default);
    }
}

#[test]
fn what_is_in_effect_is_shown_without_secrets() {
    let text = format!(
        "[admin]\ntoken = \"0123456789abcdef\"\n{WEB}env = {{ PASSWORD = \"hunter2\" }}\n\
         tester_secret = \"fedcba9876543210\"\n"
    );
    let variables = [("SWITCHBACK_SERVICE_WEB_BAKE", "1m")];
    let shown = parsed(&text, &variables, &["listen.workers=2"]);
    let toml = show::toml(&shown.document);
    let json = show::json(&shown.document).to_string();
    for secret in ["0123456789abcdef", "hunter2", "fedcba9876543210"] {
        assert!(!toml.contains(secret) && !json.contains(secret), "{secret}: {toml}");
    }
    for line in [
        "http = \"0.0.0.0:80\"  # default",
        "https = \"off\"  # there is no certificate",
        "workers = 2  # --set",
        "token = \"***\"\n",
        "[service.web]\n",
        "bake = \"1m\"  # SWITCHBACK_SERVICE_WEB_BAKE",
        "env = { PASSWORD = \"***\" }\n",
        "[service.web.probe]\n",
    ] {
        assert!(toml.contains(line), "{line}\n{toml}");
    }
    // Masked, it is still a file that means the same, but for what is masked.
    let again = read(&toml.replace("\"***\"", "\"0123456789abcdef\""));
    assert_eq!(again.services[0].plan, shown.config.services[0].plan);
    assert_eq!(again.listen, shown.config.listen);
}

#[test]
fn plain_tcp_is_a_service_that_listens() {
    let text = format!(
        "{WEB}[tcp.db]\nlisten = [\"127.0.0.1:5432\", \"[::1]:5432\"]\n\
         endpoints = \"10.0.0.1:5432\"\naffinity = \"client-address\"\n"
    );
    let config = parsed(&text, &[("SWITCHBACK_TCP_DB_BAKE", "1m")], &[]).config;
    let db = config.services.iter().find(|service| service.name.as_str() == "db").expect("it");
    assert_eq!((db.listen.len(), db.routes.len()), (2, 0));
    assert_eq!(db.template.probe.kind, ProbeKind::Tcp);
    assert_eq!(db.settings.affinity, Affinity::ClientAddress);
    assert_eq!(db.settings.idle_timeout, Duration::from_secs(600));
    assert_eq!(db.plan.bake, Duration::from_secs(60));
    assert_eq!(db.plan.criteria.limits.len(), 1);
    let said = |text: &str| {
        let problems = read_with(text, &[], &[]).expect_err("wrong");
        problems
            .findings()
            .into_iter()
            .map(|finding| finding.message)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let end = "endpoints = \"10.0.0.1:1\"\n";
    for (text, words) in [
        (format!("[tcp.db]\n{end}"), "`listen` is missing in [tcp.db]"),
        (format!("[tcp.db]\nlisten = \"off\"\n{end}"), "by its own address alone"),
        (format!("[tcp.db]\nlisten = \"0.0.0.0:80\"\n{end}"), "listen.http"),
        (format!("[tcp.db]\nlisten = \"0.0.0.0:81\"\nhost = \"a\"\n{end}"), "no key `host`"),
        (
            format!("[tcp.db]\nlisten = \"0.0.0.0:81\"\nabort = \"p95 > 2x\"\n{end}"),
            "only errors are judged",
        ),
        (format!("{WEB}[tcp.web]\nlisten = \"0.0.0.0:81\"\n{end}"), "have one name"),
    ] {
        let said = said(&text);
        assert!(said.contains(words), "{text}: {said}");
    }
}

#[test]
fn what_is_kept_and_built_is_read() {
    let config = read(
        r#"
        [state]
        dir = "var"
        checkpoints = "/backup"
        [service.web]
        host = "*"
        image = "web"
        port = 3000
        pull = "always"
        volumes = ["data:/data", "/srv/up:/up:ro"]
        keep_revisions = 4
        checkpoint = "auto"
        paths = ["backend/**", "Cargo.lock"]
        [service.web.backup]
        volumes = ["data", "/up"]
        command = ["pg_dump", "shop"]
        timeout = "5m"
        keep = 3
        max_age = "7d"
        [service.web.build]
        context = "backend"
        dockerfile = "deploy/Dockerfile"
        args = { VERSION = "1" }
        [service.api]
        host = "api.example.com"
        command = ["./api", "{port}"]
        "#,
    );
    assert_eq!(config.state.checkpoints, Path::new("/backup"));
    let [web, api] = &config.services[..] else { panic!("two services") };
    assert!(web.template.container.pull_always && !api.template.container.pull_always);
    let keeping = &web.keeping;
    assert_eq!((keeping.revisions, keeping.auto, keeping.archives), (4, true, 3));
    assert_eq!(keeping.volumes, ["data", "/up"]);
    assert_eq!(keeping.command, ["pg_dump", "shop"]);
    assert_eq!(keeping.timeout, Duration::from_secs(300));
    assert_eq!(keeping.max_age, Duration::from_secs(7 * 24 * 60 * 60));
    let build = &web.build;
    assert_eq!((&*build.context, &*build.dockerfile), ("backend", "deploy/Dockerfile"));
    assert_eq!(build.args.get("VERSION").map(String::as_str), Some("1"));
    assert_eq!(build.paths, ["backend/**", "Cargo.lock"]);
    assert_eq!((api.keeping.revisions, api.keeping.auto, api.keeping.archives), (10, false, 10));
    assert_eq!((&*api.build.context, &*api.build.dockerfile), (".", "Dockerfile"));
    let plain = read(WEB);
    assert_eq!(plain.state.checkpoints, Path::new("/var/lib/switchback/checkpoints"));
}
