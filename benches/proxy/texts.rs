//! What the proxies are told: configurations by which they do the same work. Keep-alive to two
//! upstreams at weights 95 and 5, `X-Forwarded-For`, `-Proto` and `-Host`, no access log.
//!
//! Switchback also adds `X-Request-ID` and `traceparent`, and keeps scorecards of both sides. The
//! peers do none of this, except where a request id is asked for: nginx takes its bits from OpenSSL,
//! which costs it a third more instructions, and nobody should win by that unsaid.

use std::path::Path;

use crate::peers::{Behind, Setup};

/// Connections that each may have at a time: more than any measurement opens, and so few that HAProxy,
/// which wants two files for each, has them under a common limit of 20,000.
const CONNECTIONS: usize = 9_000;

/// The label of containers that the benchmark has launched.
pub const LABEL: &str = "switchback-bench";

/// Where a proxy's things are.
#[derive(Debug)]
pub struct Places<'a> {
    /// Its own folder.
    pub here: &'a Path,
    /// The folder with the certificate.
    pub root: &'a Path,
    /// Its ports, in cleartext and with TLS.
    pub ports: (u16, u16),
    /// The origin's two sides.
    pub origins: (u16, u16),
}

/// The host of a route: what the load generator asks for. All are of the same length, so that only how
/// many there are makes a difference.
pub fn host(number: usize) -> String {
    format!("app{number:05}.example")
}

/// nginx.conf.
pub fn nginx(setup: &Setup, places: &Places<'_>) -> String {
    let (here, root) = (places.here.display(), places.root.display());
    let (http, https) = places.ports;
    let (stable, canary) = places.origins;
    let workers = setup.workers;
    // A worker alone is one process, and may be counted by callgrind. Those of root's master would
    // be nobody's, who may not look into our folder.
    let mut master = if setup.has_master() {
        format!("worker_processes {workers};\n")
    } else {
        "master_process off;\n".to_owned()
    };
    if setup.has_master() && rustix::process::geteuid().is_root() {
        master += "user root;\n";
    }
    let id = if setup.ids {
        "proxy_set_header X-Request-ID $request_id;\nadd_header X-Request-ID $request_id;\n"
    } else {
        ""
    };
    let names: Vec<String> = (0..setup.routes).map(host).collect();
    let names = if setup.routes > 1 {
        format!("server_names_hash_max_size 65536;\nserver_name {};\n", names.join(" "))
    } else {
        String::new()
    };
    let more = &setup.nginx;
    let second =
        if setup.split { format!("server 127.0.0.1:{canary} weight=5;\n") } else { String::new() };
    format!(
        "daemon off;\n{master}pid {here}/pid;\nerror_log {here}/error.log crit;\n\
         worker_rlimit_nofile {};\n\
         events {{ worker_connections {CONNECTIONS}; }}\n\
         http {{\n\
         access_log off;\n\
         client_body_temp_path {here}/body;\nproxy_temp_path {here}/proxy;\n\
         fastcgi_temp_path {here}/fastcgi;\nuwsgi_temp_path {here}/uwsgi;\n\
         scgi_temp_path {here}/scgi;\n\
         keepalive_requests 1000000;\n\
         ssl_certificate {root}/cert.pem;\nssl_certificate_key {root}/key.pem;\n\
         ssl_protocols TLSv1.2 TLSv1.3;\nssl_session_cache shared:tls:10m;\n\
         upstream app {{\n\
         server 127.0.0.1:{stable} weight=95;\n{second}\
         keepalive 1024;\nkeepalive_requests 1000000;\n}}\n\
         {}server {{\n\
         listen 127.0.0.1:{http} backlog=4096;\n\
         listen 127.0.0.1:{https} ssl http2 backlog=4096;\n{}\
         location / {{\n\
         proxy_pass http://app;\nproxy_http_version 1.1;\nproxy_set_header Connection \"\";\n\
         proxy_set_header Host $http_host;\n\
         proxy_set_header X-Forwarded-For $remote_addr;\n\
         proxy_set_header X-Forwarded-Proto $scheme;\n\
         proxy_set_header X-Forwarded-Host $http_host;\n\
         {id}\
         proxy_max_temp_file_size 0;\nproxy_request_buffering off;\n\
         client_max_body_size 0;\n}}\n{more}}}\n}}\n",
        CONNECTIONS + 1_000,
        names.split_inclusive('\n').next().unwrap_or_default(),
        names.split_once('\n').map_or("", |(_, rest)| rest),
    )
}

/// haproxy.cfg.
pub fn haproxy(setup: &Setup, places: &Places<'_>) -> String {
    let (here, root) = (places.here.display(), places.root.display());
    let (http, https) = places.ports;
    let (stable, canary) = places.origins;
    let workers = setup.workers;
    let second = if setup.split {
        format!("\x20server canary 127.0.0.1:{canary} weight 5\n")
    } else {
        String::new()
    };
    let routed = if setup.routes > 1 {
        format!("\x20use_backend %[req.hdr(host),lower,map({here}/hosts.map)]\n")
    } else {
        "\x20default_backend app\n".to_owned()
    };
    format!(
        "global\n nbthread {workers}\n maxconn {CONNECTIONS}\n\
         \x20stats socket {here}/haproxy.sock mode 600 level admin\n\
         defaults\n mode http\n timeout client 75s\n timeout server 60s\n timeout connect 2s\n\
         \x20option http-keep-alive\n http-reuse always\n\
         frontend web\n\
         \x20bind 127.0.0.1:{http} backlog 4096\n\
         \x20bind 127.0.0.1:{https} backlog 4096 ssl crt {root}/both.pem alpn h2,http/1.1\n\
         \x20http-request set-header X-Forwarded-For %[src]\n\
         \x20http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}\n\
         \x20http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}\n\
         \x20http-request set-header X-Forwarded-Host %[req.hdr(host)]\n\
         {routed}\
         backend app\n balance roundrobin\n\
         \x20server stable 127.0.0.1:{stable} weight 95\n{second}"
    )
}

/// HAProxy's routes: a host and a backend a line.
pub fn haproxy_map(setup: &Setup) -> String {
    (0..setup.routes).map(|number| format!("{} app\n", host(number))).collect()
}

/// switchback.toml.
pub fn switchback(setup: &Setup, places: &Places<'_>) -> String {
    let (here, root) = (places.here.display(), places.root.display());
    let (http, https) = places.ports;
    let (stable, _) = places.origins;
    let workers = setup.workers;
    let names: Vec<String> =
        (0..setup.routes).map(|number| format!("{:?}", host(number))).collect();
    let names =
        if setup.routes > 1 { format!("[{}]", names.join(", ")) } else { "\"*\"".to_owned() };
    let behind = match &setup.behind {
        Behind::Addresses => format!("endpoints = [\"127.0.0.1:{stable}\"]\n"),
        Behind::Processes(command) => format!("command = {command:?}\n"),
        Behind::Containers { image, arguments } => {
            format!(
                "image = {image:?}\nport = 3000\nargs = {arguments:?}\n\
                 labels = {{ {LABEL} = \"yes\" }}\n"
            )
        }
    };
    // In static setups the canary stays at 5 %: the rollout's own clock and verdicts are no part of
    // what is measured. In the others rollouts are what is measured, and short.
    let plan = match &setup.behind {
        Behind::Addresses => {
            "steps = \"5% 100%\"\nbake = \"1h\"\nbake_max = \"2h\"\nabort = \"errors > 80%\"\n"
        }
        Behind::Processes(_) | Behind::Containers { .. } => {
            "steps = \"5% 50% 100%\"\nbake = \"300ms\"\nbake_max = \"400ms\"\n\
             on_inconclusive = \"advance\"\nabort = \"errors > 80%\"\nkeep_warm = \"1s\"\n"
        }
    };
    let (service, tables, listen) = (&setup.service, &setup.tables, &setup.listen);
    format!(
        "[listen]\nhttp = \"127.0.0.1:{http}\"\nhttps = \"127.0.0.1:{https}\"\n\
         workers = {workers}\nkeep_alive_requests = 1000000\n{listen}\
         [tls]\ncert = \"{root}/cert.pem\"\nkey = \"{root}/key.pem\"\n\
         [admin]\nsocket = \"{here}/admin.sock\"\nlisten = \"off\"\n\
         [state]\ndir = \"{here}/state\"\n\
         [service.web]\nhost = {names}\nhttps_redirect = false\n{behind}{plan}\
         probe = {{ path = \"/up\", interval = \"200ms\", rise = 1 }}\n{service}{tables}"
    )
}
