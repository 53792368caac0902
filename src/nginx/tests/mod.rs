//! The configurations that people have, and what becomes of them.

mod closed;

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::config::{Config, Input, parse};
use crate::model::revision::Source;
use crate::routing::settings::Affinity;

/// What is written is a configuration that this version takes.
fn taken(imported: &Imported) -> Config {
    let variables = BTreeMap::new();
    let input = Input {
        name: Path::new("switchback.toml"),
        text: &imported.toml,
        variables: &variables,
        flags: &[],
        read: &|_| Err("no files".to_owned()),
    };
    parse(&input).unwrap_or_else(|problems| panic!("{problems}\n{}", imported.toml)).config
}

const TLS_AND_WEBSOCKET: &str = r#"
user www-data;
worker_processes auto;
events { worker_connections 1024; }
http {
    map $http_upgrade $connection_upgrade { default upgrade; '' close; }
    upstream app {
        server 127.0.0.1:3000;
        server 127.0.0.1:3001;
        keepalive 32;
    }
    keepalive_timeout 65;
    ssl_protocols TLSv1.2 TLSv1.3;
    server {
        listen 443 ssl http2;
        listen [::]:443 ssl;
        server_name app.example.com www.app.example.com; # two
        ssl_certificate     /etc/ssl/app.pem;
        ssl_certificate_key "/etc/ssl/app key.pem";
        ssl_session_cache shared:SSL:10m;
        location / {
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_connect_timeout 5;
            proxy_read_timeout 60s;
        }
        location /ws/ {
            proxy_pass http://127.0.0.1:4000;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_read_timeout 1h;
        }
    }
}
"#;

#[test]
fn a_reverse_proxy_with_tls_and_websockets_is_carried_over_whole() {
    let imported = import(TLS_AND_WEBSOCKET).expect("good");
    assert_eq!(imported.left, Vec::<String>::new(), "{}", imported.toml);
    let config = taken(&imported);
    let tls = config.tls.expect("certificates");
    assert_eq!(tls.certificates[0].key, Path::new("/etc/ssl/app key.pem"));
    assert_eq!(config.listen.https[0].to_string(), "[::]:443");
    assert!(config.listen.http.is_empty());
    assert_eq!(config.listen.limits.keep_alive.as_secs(), 65);
    let [app, ws] = config.services.as_slice() else { panic!("{}", imported.toml) };
    assert_eq!((app.name.as_str(), app.routes.len()), ("app", 2));
    assert_eq!(app.template.source.to_string(), "127.0.0.1:3000, 127.0.0.1:3001");
    assert_eq!(app.settings.connect_timeout.as_secs(), 5);
    assert_eq!(app.settings.response_timeout.as_secs(), 60);
    assert!(ws.routes.iter().all(|route| route.path == "/ws"), "{:?}", ws.routes);
    assert_eq!(ws.settings.idle_timeout.as_secs(), 3600);
}

#[test]
fn ninety_to_ten_is_a_rollout() {
    let weights = "upstream app { server 10.0.0.1:80 weight=9; server 10.0.0.2:80; }\n\
                   server { listen 80; server_name a.example; location / { proxy_pass http://app; } }";
    let clients = "split_clients \"${cookie_user}x\" $side { 10% canary; * stable; }\n\
                   upstream stable { server 10.0.0.1:80; }\n\
                   upstream canary { server 10.0.0.2:80; }\n\
                   server { listen 80; server_name a.example; location / { proxy_pass http://$side; } }";
    for (text, name) in [(weights, "app"), (clients, "side")] {
        let imported = import(text).expect("good");
        assert_eq!(imported.left, Vec::<String>::new());
        let config = taken(&imported);
        let service = &config.services[0];
        let stable = "10.0.0.1:80".parse().expect("an address");
        assert_eq!(service.template.source, Source::Endpoints(vec![stable]));
        let command = format!(
            "# 10% of the traffic goes elsewhere: switchback deploy {name} --endpoints 10.0.0.2:80 \
             --steps \"10% 100%\" --detach; switchback pause {name}\n"
        );
        assert!(imported.toml.contains(&command), "{}", imported.toml);
    }
    let config = taken(&import(clients).expect("good"));
    assert_eq!(config.services[0].settings.affinity, Affinity::Cookie("user".to_owned()));
}

#[test]
fn what_has_a_key_is_written_and_what_has_none_is_named_with_its_line() {
    let text = r#"
limit_req_zone $binary_remote_addr zone=one:10m rate=10r/s;
server {
    listen 80;
    server_name old.example;
    return 301 https://new.example$request_uri;
}
server {
    listen 8080 default_server;
    client_max_body_size 10m;
    add_header X-Frame-Options DENY always;
    set_real_ip_from 10.0.0.0/8;
    real_ip_header X-Forwarded-For;
    location /api/ { limit_req zone=one burst=20 nodelay; proxy_pass http://localhost:3000/; }
    location ~ \.php$ { fastcgi_pass unix:/run/php.sock; }
    location /static { root /srv/static; }
    location /far { proxy_pass http://backend.internal:3000; }
    sub_filter a b;
}
"#;
    let imported = import(text).expect("good");
    let config_of = |key: &str| crate::config::keys::find(key).is_some();
    let told = |line: usize, words: &str| {
        let begins = format!("line {line}: ");
        imported.left.iter().any(|left| left.starts_with(&begins) && left.contains(words))
    };
    assert!(imported.toml.contains("[service.old-example]"), "{}", imported.toml);
    assert!(told(15, "fastcgi_pass"), "{:#?}", imported.left);
    assert!(imported.toml.contains("files = \"/srv/static\""), "{}", imported.toml);
    assert!(told(17, "backend.internal:3000"), "{:#?}", imported.left);
    for (line, key, words) in [
        (14, "service.x.rate_limit", "10/s burst 20 by client-address"),
        (14, "service.x.strip_prefix", "/api"),
        (11, "service.x.headers.set", "DENY"),
    ] {
        // A version that has the key writes it; one that has not says which it would be.
        assert!(config_of(key) != told(line, words), "{key}: {:#?}", imported.left);
        assert!(!config_of(key) || imported.toml.contains(words), "{key}: {}", imported.toml);
    }
    assert!(imported.toml.contains("trusted_proxies = \"10.0.0.0/8\""), "{}", imported.toml);
    assert!(imported.toml.contains("endpoints = \"127.0.0.1:3000\""), "{}", imported.toml);
}

#[test]
fn streams_are_plain_tcp() {
    let text = "stream { upstream db { server 10.0.0.1:5432; server 10.0.0.2:5432; }\n\
                server { listen 5432; proxy_pass db; proxy_timeout 1h; }\n\
                server { listen 53 udp; proxy_pass 10.0.0.9:53; } }";
    let imported = import(text).expect("good");
    assert_eq!(imported.left.len(), 1, "{:?}", imported.left);
    assert!(imported.left[0].contains("only TCP"));
    let text =
        text.lines().filter(|line| !line.contains("udp")).collect::<Vec<_>>().join("\n") + "}";
    let config = taken(&import(&text).expect("good"));
    let db = &config.services[0];
    assert_eq!((db.name.as_str(), db.listen[0].to_string().as_str()), ("db", "0.0.0.0:5432"));
    assert_eq!(db.settings.idle_timeout.as_secs(), 3600);
}

#[test]
fn cleartext_and_tls_of_one_host_are_one_service() {
    let text = "server { listen 80; listen 443 ssl; server_name a.example; ssl_certificate c;\n\
                ssl_certificate_key k; ssl_verify_client on; ssl_client_certificate ca;\n\
                location / { proxy_pass http://127.0.0.1:1; } }\n\
                server { listen 443 ssl; server_name b.example; ssl_certificate d;\n\
                ssl_certificate_key l; location / { grpc_pass grpc://127.0.0.1:2; } }";
    let imported = import(text).expect("good");
    assert_eq!(imported.left, Vec::<String>::new());
    let config = taken(&imported);
    let tls = config.tls.expect("certificates");
    assert_eq!(tls.certificates.len(), 2);
    // Whoever comes to the other one is not asked.
    assert!(tls.client.is_some_and(|client| !client.is_required));
    let needs = |of: usize| config.services[of].settings.client_certificate;
    assert!(needs(0) && !needs(1), "{}", imported.toml);
    assert_eq!((config.listen.http.len(), config.listen.https.len()), (1, 1));
    assert_eq!(config.services.len(), 2);
}

#[test]
fn what_is_no_configuration_is_told_with_its_line() {
    for (text, line, words) in [
        ("server {\n listen 80;\n", 1, "never closed"),
        ("listen 80;\n}\n", 2, "closes nothing"),
        ("server {\n listen 80\n}\n", 2, "does not end with `;`"),
        ("a \"b\n\n", 1, "has no end"),
        ("user x", 1, "does not end"),
        ("\n{ }", 2, "after nothing"),
    ] {
        let error = import(text).expect_err(text);
        assert!(error.line == line && error.what.contains(words), "{text:?}: {error}");
    }
    assert_eq!(import("# nothing\n").expect("good").toml, "");
}

const SITE: &str = r#"
http {
    gzip on;
    gzip_types text/css;
    limit_conn_zone $binary_remote_addr zone=addr:10m;
    set_real_ip_from 10.0.0.0/8;
    real_ip_header CF-Connecting-IP;
    server { listen 80; server_name www.app.example; return 301 https://app.example$request_uri; }
    server {
        listen 127.0.0.1:8080 proxy_protocol;
        server_name app.example;
        root /srv/public;
        location = /robots.txt { return 200 "User-agent: *\n"; }
        location /old/ { return 302 /new$request_uri; }
        location /assets/ { expires 30d; }
        location /media/ { alias /srv/uploads/; try_files $uri =404; }
        location ~* \.(png|jpg)$ { expires max; }
        location / { try_files $uri @app; }
        location @app { proxy_pass http://127.0.0.1:3000; limit_conn addr 10; }
    }
    server { listen 80 default_server; server_name _; return 444; }
}
"#;

#[test]
fn files_redirects_and_fixed_answers_are_routes() {
    use crate::edge::files::Missing;
    use crate::edge::rules::Act;
    let imported = import(SITE).expect("good");
    // Only that whoever connects to the other address comes there, too.
    let [left] = imported.left.as_slice() else { panic!("{:?}", imported.left) };
    assert!(left.contains("`listen 127.0.0.1:8080`"), "{left}");
    let config = taken(&imported);
    assert_eq!(config.listen.client_header, "cf-connecting-ip");
    assert!(config.listen.proxy_protocol.is_on("127.0.0.1:8080".parse().expect("an address")));
    assert!(!config.listen.proxy_protocol.is_on("0.0.0.0:80".parse().expect("an address")));
    let [app] = config.services.as_slice() else { panic!("{}", imported.toml) };
    assert_eq!(app.policy.base.compress.len(), 3);
    assert_eq!(app.policy.base.limits.at_once[0].most, 10);
    let hosts: Vec<String> = app.routes.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["app.example", "www.app.example"]);
    let routes = &app.policy.routes;
    let told: Vec<String> = routes
        .iter()
        .map(|route| match &route.rules.act {
            Act::Files(files) => {
                let missing = match &files.missing {
                    Missing::NotFound => "404".to_owned(),
                    Missing::App => "app".to_owned(),
                    Missing::File(file) => file.clone(),
                };
                format!("{} {missing}", files.root.display())
            }
            Act::Redirect { status, to } => format!("{} {to:?}", status.as_u16()),
            Act::Respond { status, .. } => status.as_u16().to_string(),
            Act::Forward => "app".to_owned(),
        })
        .collect();
    assert_eq!(told.len(), 7, "{}", imported.toml);
    assert!(told[0].starts_with("301 "), "other hosts come first: {told:?}");
    assert_eq!(told[1], "200");
    assert_eq!(told[2], "/srv/public 404");
    assert!(told.contains(&"/srv/uploads 404".to_owned()), "{told:?}");
    assert_eq!(told[6], "/srv/public app");
    assert!(told.iter().any(|line| line.starts_with("302 ")), "{told:?}");
    assert!(imported.toml.contains("max-age=2592000"), "{}", imported.toml);
    assert!(imported.toml.contains("host = \"www.app.example\""), "{}", imported.toml);
}

#[test]
fn an_app_below_its_files_keeps_its_path() {
    let text = "server { listen 80; server_name a.example; root /srv/www;\n\
                try_files $uri /index.html;\n\
                location /api/ { proxy_pass http://127.0.0.1:1/; } }";
    let imported = import(text).expect("good");
    assert_eq!(imported.left, Vec::<String>::new(), "{}", imported.toml);
    let config = taken(&imported);
    let [app] = config.services.as_slice() else { panic!("{}", imported.toml) };
    let paths: Vec<&str> = app.routes.iter().map(|route| route.path.as_str()).collect();
    assert_eq!(paths, ["/api", "/"], "{}", imported.toml);
    let [api, rest] = app.policy.routes.as_slice() else { panic!("{}", imported.toml) };
    assert_eq!(api.rules.act, crate::edge::rules::Act::Forward);
    assert!(api.rules.rewrite.strip.is_some() && rest.rules.rewrite.strip.is_none());
}

/// What nobody need run for: its service has routes, and no instance.
#[test]
fn hosts_without_an_app_need_no_instance() {
    const LEADS: &str = "server { listen 80; server_name old.example www.old.example;\n\
        return 301 https://new.example$request_uri; }";
    const SITE: &str = "server { listen 80; server_name b.example;\n\
        location /.well-known/acme-challenge/ { root /srv/acme; }\n\
        location / { return 301 https://$host$request_uri; } }\n\
        server { listen 443 ssl; server_name b.example; ssl_certificate c; ssl_certificate_key k;\n\
        root /srv/b; location /old { return 410; } location = /x { return 302 /y; }\n\
        location / { try_files $uri $uri/ =404; } error_page 404 /404.html; }";
    const PART: &str = "server { server_name c.example; location /static/ { root /srv/c; } }";
    const TO_TLS: &str = "server { listen 80 default_server; server_name _;\n\
        return 301 https://$host$request_uri; }";
    for (text, service, routes) in [
        (LEADS, "old-example", &[("/", 301)][..]),
        (PART, "c-example", &[("/static", 0), ("/", 404)]),
        (TO_TLS, "web", &[("/", 301)]),
    ] {
        let imported = import(text).expect("good");
        assert_eq!(imported.left, Vec::<String>::new(), "{}", imported.toml);
        let config = taken(&imported);
        let [alone] = config.services.as_slice() else { panic!("{}", imported.toml) };
        assert!(alone.answers_alone());
        assert_eq!(alone.name.as_str(), service);
        let told: Vec<_> = alone.policy.routes.iter().map(described).collect();
        let wanted: Vec<_> = routes.iter().map(|(path, s)| ((*path).to_owned(), *s)).collect();
        assert_eq!(told, wanted, "{}", imported.toml);
    }
    let imported = import(&format!("{SITE}\n{LEADS}\n{TO_TLS}")).expect("good");
    let config = taken(&imported);
    let names: Vec<&str> = config.services.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["b-example", "old-example"], "{}", imported.toml);
    assert!(config.services.iter().all(crate::config::Service::answers_alone));
    let told: Vec<_> = config.services[0].policy.routes.iter().map(described).collect();
    let expected = [("/x", 302), ("/.well-known/acme-challenge", 0), ("/old", 410), ("/", 0)];
    assert_eq!(told, expected.map(|(path, status)| (path.to_owned(), status)), "{}", imported.toml);
    // What is asked of an app that is not there cannot be had.
    let app = import("server { server_name d.example; root /s; try_files $uri @app; }");
    assert!(app.expect("good").left[0].contains("there is no service beside it"));
}

/// The first path of a route and the status it answers with; files have none.
fn described(route: &crate::edge::rules::RouteSpec) -> (String, u16) {
    use crate::edge::matcher::PathMatch;
    use crate::edge::rules::Act;
    let path = match &route.matcher.paths[0] {
        PathMatch::Prefix(path) | PathMatch::Exact(path) => path.clone(),
        PathMatch::Pattern(_) => "*".to_owned(),
    };
    let status = match &route.rules.act {
        Act::Redirect { status, .. } | Act::Respond { status, .. } => status.as_u16(),
        Act::Files(_) | Act::Forward => 0,
    };
    (path, status)
}

#[test]
fn the_proxy_protocol_is_carried_over() {
    let text = "stream { server { listen 5432 proxy_protocol; set_real_ip_from 10.0.0.0/8;\n\
                proxy_protocol on; proxy_pass 10.0.0.1:5432; } }";
    let imported = import(text).expect("good");
    assert_eq!(imported.left, Vec::<String>::new(), "{}", imported.toml);
    let config = taken(&imported);
    assert!(config.listen.proxy_protocol.is_on("0.0.0.0:5432".parse().expect("an address")));
    assert!(!config.services[0].template.preamble.is_none());
    let bare = "server { listen 80 proxy_protocol; location / { proxy_pass http://127.0.0.1:1; } }";
    let imported = import(bare).expect("good");
    assert!(imported.left[0].contains("trusted_proxies"), "{:?}", imported.left);
    assert!(!taken(&imported).listen.trusted_proxies.is_empty());
}

/// What guards a place or would run there is carried over, or the place is closed.
#[test]
fn nothing_is_open_here_that_was_closed_there() {
    let php = "server { listen 80; server_name p.example; root /srv/public; index index.php;\n\
        location / { try_files $uri $uri/ /index.php?$query_string; }\n\
        location ~ \\.php$ { fastcgi_pass unix:/run/php.sock; include fastcgi_params; }\n\
        location ~ /\\.(?!well-known).* { deny all; } }";
    let imported = import(php).expect("good");
    let config = taken(&imported);
    let [site] = config.services.as_slice() else { panic!("{}", imported.toml) };
    let told: Vec<_> = site.policy.routes.iter().map(described).collect();
    let expected = [("*", 404), ("*", 403), ("/", 0)];
    assert_eq!(told, expected.map(|(path, status)| (path.to_owned(), status)), "{}", imported.toml);
    assert!(!imported.toml.contains("index.php"), "no source is shown: {}", imported.toml);
    let told = |words: &str| imported.left.iter().any(|left| left.contains(words));
    assert!(told("fastcgi_pass") && told("index.php?$query_string"), "{:#?}", imported.left);

    let guarded = "limit_req_zone $binary_remote_addr zone=one:1m rate=5r/s;\n\
        server { listen 80; server_name g.example; root /srv/www;\n\
        location /admin/ { auth_basic \"Staff\"; auth_basic_user_file users; allow 10.0.0.0/8;\n\
        deny all; limit_req zone=one; add_header X-A b; expires 1h; sub_filter a b; }\n\
        location /closed/ { deny all; proxy_pass http://127.0.0.1:1; }\n\
        location /app/ { deny all; allow 10.0.0.1; proxy_pass http://127.0.0.1:2; }\n\
        location @later { root /srv/other; } location / { try_files $uri =404; } }";
    let imported = import(guarded).expect("good");
    for line in [
        "basic_auth = \"users\"",
        "realm = \"Staff\"",
        "allow = \"10.0.0.0/8\"",
        "rate_limit = \"5/s by client-address\"",
        "headers.set = { X-A = \"b\", Cache-Control = \"max-age=3600\" }",
        "path = \"/closed\"\nstatus = 403",
        "deny = [\"0.0.0.0/0\", \"::/0\"]",
    ] {
        assert!(imported.toml.contains(line), "{line}: {}", imported.toml);
    }
    let told = |words: &str| imported.left.iter().any(|left| left.contains(words));
    assert!(told("sub_filter") && told("location @later"), "{:#?}", imported.left);
    assert!(!imported.toml.contains("/srv/other"), "{}", imported.toml);
}

/// What certbot makes of a site.
#[test]
fn redirects_by_if_are_redirects() {
    let text = r#"
server {
    server_name a.example www.a.example;
    root /var/www/html;
    location / { try_files $uri $uri/ =404; }
    location ~ /\.ht { deny all; }
    location /health { return 200 "healthy\n"; add_header Content-Type text/css; }
    listen 443 ssl;
    ssl_certificate c; ssl_certificate_key k;
    include /etc/letsencrypt/options-ssl-nginx.conf;
    ssl_dhparam /etc/letsencrypt/ssl-dhparams.pem;
}
server {
    if ($host = www.a.example) { return 301 https://$host$request_uri; }
    if ($host = a.example) { return 301 https://$host$request_uri; }
    listen 80 default_server;
    server_name a.example www.a.example;
    return 404;
}
"#;
    let imported = import(text).expect("good");
    assert_eq!(imported.left, Vec::<String>::new(), "{}", imported.toml);
    let config = taken(&imported);
    let [site] = config.services.as_slice() else { panic!("{}", imported.toml) };
    let told: Vec<_> = site.policy.routes.iter().map(described).collect();
    let expected = [("*", 403), ("/health", 200), ("/", 0)];
    assert_eq!(told, expected.map(|(path, status)| (path.to_owned(), status)), "{}", imported.toml);
    assert!(imported.toml.contains("respond = \"healthy\\n\""), "{}", imported.toml);
    assert!(imported.toml.contains("content_type = \"text/css\""), "{}", imported.toml);
    assert!(site.policy.base.to_https);
}
