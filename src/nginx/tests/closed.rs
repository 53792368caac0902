//! What nginx kept somebody from, he is kept from here: by the imported configuration itself, asked as
//! the proxy asks it.

use std::time::Instant;

use http::{HeaderMap, Method, Uri};

use super::*;
use crate::config::{Config, Service};
use crate::edge::facts::Facts;
use crate::edge::policy::Policy;
use crate::edge::rules::Act;
use crate::edge::send_file::Named;
use crate::routing::index::Index;

/// What becomes of `METHOD host/path` from an address: the service and what it does.
fn met(config: &Config, method: &str, at: &str, from: &str) -> String {
    let (host, _) = at.split_once('/').expect("a path");
    let path = &at[host.len()..];
    let index = Index::new(config.services.iter().map(|one| (&one.name, &one.routes[..])));
    let Some(service) = index.service_of(host, path) else { return "404".to_owned() };
    let service = &config.services[service];
    asked(service, method, host, path, from)
}

fn asked(service: &Service, method: &str, host: &str, path: &str, from: &str) -> String {
    let policy = Policy::new(service.policy.clone(), None, &Default::default(), Instant::now());
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let uri: Uri = path.parse().expect("a path");
    let id = http::HeaderValue::from_static("id");
    let facts = Facts {
        client: from.parse().expect("an address"),
        host,
        method: &method,
        uri: &uri,
        secure: true,
        request_id: &id,
        user: None,
        certificate: false,
    };
    let rule = policy.rule(&facts, &HeaderMap::new());
    if let Err(reply) = rule.admit(&facts, &HeaderMap::new(), 443, Instant::now()) {
        return reply.status.as_u16().to_string();
    }
    let asks = |found: bool, what: &str| if found { what.to_owned() } else { String::new() };
    let mut said = asks(rule.rules.users.is_some(), "password ");
    said += &asks(rule.rules.forward_auth.is_some(), "asks ");
    said += &match &rule.rules.act {
        Act::Respond { status, .. } | Act::Redirect { status, .. } => status.as_u16().to_string(),
        Act::Files(files) => files.root.display().to_string(),
        Act::Forward => match &rule.leads_to {
            Some(other) => other.to_string(),
            None => service.name.to_string(),
        },
    };
    said
}

struct Case<'a> {
    at: &'a str,
    from: &'a str,
    met: &'a str,
}

fn case<'a>(at: &'a str, from: &'a str, met: &'a str) -> Case<'a> {
    Case { at, from, met }
}

const FAR: &str = "203.0.113.9";
const NEAR: &str = "10.0.0.9";

fn check(text: &str, cases: &[Case<'_>]) -> Imported {
    let imported = import(text).expect("good");
    let config = taken(&imported);
    for Case { at, from, met: wanted } in cases {
        let found = met(&config, "GET", at, from);
        assert_eq!(found, *wanted, "{at} from {from}:\n{}\n{:#?}", imported.toml, imported.left);
    }
    imported
}

#[test]
fn places_of_one_app_are_routes_of_one_service() {
    let text = "limit_req_zone $binary_remote_addr zone=one:1m rate=5r/s;\n\
        upstream app { server 127.0.0.1:3000; }\n\
        server { listen 80; server_name a.example; client_max_body_size 10m;\n\
        proxy_read_timeout 30s; add_header X-A 1;\n\
        location / { proxy_pass http://app; }\n\
        location /api/ { proxy_pass http://app/; limit_req zone=one; }\n\
        location /admin { proxy_pass http://app; allow 10.0.0.0/8; deny all; }\n\
        location = /login { proxy_pass http://app; proxy_read_timeout 5s; }\n\
        location ~* \\.(png|jpg)$ { proxy_pass http://app; expires 1d; add_header X-B 2; }\n\
        location /up/ { proxy_pass http://app; client_max_body_size 2m; }\n\
        location /far/ { proxy_pass http://127.0.0.1:4000; } }";
    let imported = check(
        text,
        &[
            case("a.example/", FAR, "app"),
            case("a.example/x", FAR, "app"),
            case("a.example/api/x", FAR, "app"),
            case("a.example/admin", FAR, "403"),
            case("a.example/admin/x", FAR, "403"),
            case("a.example/administrator", FAR, "403"),
            case("a.example/admin/x", NEAR, "app"),
            case("a.example/far/x", FAR, "a-example-far"),
        ],
    );
    let config = taken(&imported);
    let [app, far] = config.services.as_slice() else { panic!("{}", imported.toml) };
    assert_eq!((app.routes.len(), app.routes[0].path.as_str()), (1, "/"));
    assert_eq!(app.settings.response_timeout.as_secs(), 30, "what all say holds for all");
    assert_eq!((app.settings.max_body, far.settings.max_body), (10 << 20, 10 << 20));
    let route = |wanted: &str| {
        let found = app
            .policy
            .routes
            .iter()
            .find(|route| format!("{:?}", route.matcher.paths).contains(wanted));
        found.unwrap_or_else(|| panic!("no {wanted}: {}", imported.toml))
    };
    assert_eq!(route("\"/api\"").rules.limits.rates.len(), 1);
    assert!(route("\"/api\"").rules.rewrite.strip.is_some());
    assert_eq!(route("/login").rules.times.response.map(|time| time.as_secs()), Some(5));
    assert_eq!(app.policy.routes.iter().filter(|route| route.own_limits).count(), 1);
    // Fields that stand further in replace those outside, as there.
    assert!(
        imported.toml.contains("headers.set = { Cache-Control = \"max-age=86400\", X-B = \"2\" }"),
        "{}",
        imported.toml
    );
    let told = |words: &str| imported.left.iter().any(|left| left.contains(words));
    assert!(told("client_max_body_size 2m"), "{:#?}", imported.left);
    assert_eq!(imported.left.len(), 1, "{:#?}", imported.left);
}

#[test]
fn only_nginx_itself_comes_to_what_is_internal() {
    let text = "server { listen 80; server_name a.example; root /srv/www;\n\
        location / { proxy_pass http://127.0.0.1:1; }\n\
        location /protected/ { internal; alias /srv/files/; }\n\
        location /hidden { internal; proxy_pass http://127.0.0.1:2; }\n\
        location = /50x.html { internal; root /srv/pages; } }";
    let imported = check(
        text,
        &[
            case("a.example/protected/x", FAR, "404"),
            case("a.example/hidden", FAR, "404"),
            case("a.example/50x.html", FAR, "404"),
            case("a.example/x", FAR, "a-example"),
        ],
    );
    // The app may have files sent from there; what it may not, is said.
    assert!(
        imported.toml.contains("[service.a-example.send_file]\n\"/protected\" = \"/srv/files\"\n"),
        "{}",
        imported.toml
    );
    let told = |words: &str| imported.left.iter().any(|left| left.contains(words));
    assert!(told("line 4: `location /hidden`"), "{:#?}", imported.left);
    assert_eq!(imported.left.len(), 1, "{:#?}", imported.left);
}

#[test]
fn what_an_app_may_name_goes_with_it() {
    let text = "server { listen 80; server_name a.example; root /srv/www;\n\
        location / { proxy_pass http://127.0.0.1:1; }\n\
        location /api { proxy_pass http://127.0.0.1:2; auth_request /auth; }\n\
        location = /auth { internal; proxy_pass http://127.0.0.1:3/ok; }\n\
        location ^~ /a/ { internal; alias /srv/a/; }\n\
        location /b { internal; root /srv; }\n\
        location /c/ { internal; }\n\
        location ~ ^/d/ { internal; alias /srv/d/; }\n\
        location /e/ { internal; alias /srv/$1; } }";
    let imported =
        check(text, &[case("a.example/a/x", FAR, "404"), case("a.example/b/x", FAR, "404")]);
    let spec = taken(&imported);
    assert_eq!(spec.services.len(), 2);
    for service in &spec.services {
        let places = &service.policy.base.send_file;
        let named = |name: &'static str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("x-accel-redirect", http::HeaderValue::from_static(name));
            match places.take(&mut headers) {
                Some(Named::File(root, name)) => format!("{} {name}", root.display()),
                other => format!("{other:?}"),
            }
        };
        assert_eq!(named("/a/x"), "/srv/a x");
        assert_eq!(named("/b/x"), "/srv/b x");
        assert_eq!(named("/c/x"), "/srv/www/c x");
        assert_eq!(named("/e/x"), "Some(Elsewhere(\"/e/x\"))");
    }
    assert!(imported.left.is_empty(), "{:#?}", imported.left);
}

#[test]
fn expressions_come_where_nginx_has_them() {
    let text = "server { listen 80; server_name a.example; root /srv/www;\n\
        location ^~ /private/ { deny all; }\n\
        location ^~ /.well-known/acme-challenge/ { root /srv/acme; }\n\
        location ~* \\.(png|css)$ { expires 1d; }\n\
        location ~* \\.(sql|bak)$ { deny all; }\n\
        location ~ /\\. { deny all; }\n\
        location ~ ^/(manager|status)(/|$) { allow 10.0.0.0/8; deny all; proxy_pass http://127.0.0.1:1; }\n\
        location /files/ { proxy_pass http://127.0.0.1:2; }\n\
        location / { proxy_pass http://127.0.0.1:1; } }";
    check(
        text,
        &[
            case("a.example/private/x.png", FAR, "403"),
            case("a.example/.well-known/acme-challenge/x", FAR, "/srv/acme"),
            case("a.example/x.png", FAR, "/srv/www"),
            case("a.example/x.PNG", FAR, "/srv/www"),
            case("a.example/dump.SQL", FAR, "403"),
            case("a.example/.git/config", FAR, "403"),
            // Nobody sees them at another service of the same hosts either.
            case("a.example/files/.git/config", FAR, "403"),
            case("a.example/files/dump.sql", FAR, "403"),
            case("a.example/files/x", FAR, "a-example-files"),
            case("a.example/manager/x", FAR, "403"),
            case("a.example/status", FAR, "403"),
            case("a.example/manager/x", NEAR, "a-example"),
            case("a.example/managers", FAR, "a-example"),
        ],
    );
}

#[test]
fn a_server_for_this_machine_is_not_for_everybody() {
    let text = "server { listen 80; server_name a.example; location / { proxy_pass http://127.0.0.1:1; } }\n\
        server { listen 127.0.0.1:8081; server_name ops.example;\n\
        location / { proxy_pass http://127.0.0.1:2; } }\n\
        server { listen 10.0.0.5:8082; server_name lan.example;\n\
        location / { proxy_pass http://127.0.0.1:3; } }\n\
        server { listen 80; server_name ~^(.+)\\.secret$; location / { proxy_pass http://127.0.0.1:4; } }";
    let imported = check(
        text,
        &[
            case("a.example/", FAR, "a-example"),
            case("ops.example/", FAR, "403"),
            case("ops.example/", "127.0.0.1", "ops-example"),
            // A host that cannot be said is not every host.
            case("other.example/", FAR, "404"),
        ],
    );
    let told = |words: &str| imported.left.iter().any(|left| left.contains(words));
    assert!(told("`listen 10.0.0.5:8082`") && told("server_name ~"), "{:#?}", imported.left);
    // Alone, it is what the file is for: whoever reaches it may come.
    let alone = "server { listen 127.0.0.1:8081; server_name ops.example;\n\
        location / { proxy_pass http://127.0.0.1:2; } }";
    check(alone, &[case("ops.example/", FAR, "ops-example")]);
}

#[test]
fn what_is_asked_of_some_is_asked_of_them_here() {
    let text = "server { listen 443 ssl; server_name a.example; ssl_certificate c; ssl_certificate_key k;\n\
        location / { proxy_pass http://127.0.0.1:1; } }\n\
        server { listen 443 ssl; server_name b.example; ssl_certificate d; ssl_certificate_key l;\n\
        ssl_verify_client on; ssl_client_certificate ca;\n\
        location / { proxy_pass http://127.0.0.1:2; } location /f/ { root /srv; } }";
    let imported = import(text).expect("good");
    let config = taken(&imported);
    assert_eq!(imported.left, Vec::<String>::new(), "{}", imported.toml);
    let client = config.tls.as_ref().and_then(|tls| tls.client.as_ref()).expect("asked");
    assert!(!client.is_required);
    let [a, b] = config.services.as_slice() else { panic!("{}", imported.toml) };
    assert!(!a.settings.client_certificate && b.settings.client_certificate);
}

#[test]
fn whoever_is_asked_there_is_asked_here() {
    let text = "upstream auth { server 127.0.0.1:4180; }\n\
        server { listen 80; server_name a.example; auth_request /oauth2/auth;\n\
        location = /oauth2/auth { internal; proxy_pass http://auth; }\n\
        location /oauth2/ { auth_request off; proxy_pass http://auth; }\n\
        location /ping { auth_request off; return 200 ok; }\n\
        location /f/ { root /srv; }\n\
        location / { proxy_pass http://127.0.0.1:1; limit_except GET POST { deny all; } } }";
    let imported = check(
        text,
        &[
            case("a.example/", FAR, "asks a-example"),
            case("a.example/f/x", FAR, "asks /srv"),
            case("a.example/oauth2/start", FAR, "auth"),
            case("a.example/oauth2/auth", FAR, "404"),
        ],
    );
    assert_eq!(imported.left, Vec::<String>::new(), "{}", imported.toml);
    let config = taken(&imported);
    for (method, wanted) in [("GET", "asks a-example"), ("HEAD", "asks a-example"), ("PUT", "405")]
    {
        assert_eq!(met(&config, method, "a.example/x", FAR), wanted, "{method}");
    }
    assert!(imported.toml.contains("http://127.0.0.1:4180/oauth2/auth"), "{}", imported.toml);
}

#[test]
fn a_level_replaces_what_the_one_around_it_says() {
    let text = "http { allow 10.0.0.0/8; deny all;\n\
        server { listen 80; server_name a.example; allow 192.168.0.0/16; deny all;\n\
        location / { proxy_pass http://127.0.0.1:1; }\n\
        location /open/ { allow all; proxy_pass http://127.0.0.1:1; } } }";
    check(
        text,
        &[
            case("a.example/", NEAR, "403"),
            case("a.example/", "192.168.0.1", "a-example"),
            case("a.example/open/", FAR, "a-example"),
        ],
    );
}

#[test]
fn a_place_where_nothing_is_leads_to_no_app() {
    let text = "server { listen 80; server_name a.example;\n\
        if ($blocked) { return 403; } if ($bad_bot) { return 403; }\n\
        if ($request_method !~ ^(GET|HEAD|POST)$) { return 405; }\n\
        location / { proxy_pass http://127.0.0.1:1; }\n\
        location /admin { allow 10.0.0.0/8; deny all; }\n\
        location /status { stub_status; } }";
    let imported = check(
        text,
        &[
            case("a.example/admin", NEAR, "404"),
            case("a.example/admin.php", FAR, "404"),
            case("a.example/status", FAR, "404"),
        ],
    );
    let told = |words: &str| imported.left.iter().any(|left| left.contains(words));
    // Each of them, not the first alone.
    assert!(told("$blocked") && told("$bad_bot") && told("stub_status"), "{:#?}", imported.left);
    assert!(!told("request_method"), "{:#?}", imported.left);
    assert_eq!(met(&taken(&imported), "DELETE", "a.example/x", FAR), "405");
}

#[test]
fn a_guarded_beginning_is_guarded_at_the_app_beside_it() {
    let text = "server { listen 80; server_name a.example;\n\
        location / { proxy_pass http://127.0.0.1:1; }\n\
        location /admin { allow 10.0.0.0/8; deny all; proxy_pass http://127.0.0.1:2; } }";
    check(
        text,
        &[
            case("a.example/admin/x", FAR, "403"),
            case("a.example/administrator", FAR, "403"),
            case("a.example/administrator", NEAR, "a-example-admin"),
            case("a.example/x", FAR, "a-example"),
        ],
    );
}

#[test]
fn what_goes_to_an_app_is_said_as_there_or_not_at_all() {
    let text = "server { listen 80; server_name a.example; location / { proxy_pass http://127.0.0.1:1;\n\
        proxy_set_header X-Remote-User \"\"; proxy_set_header X-User $remote_user;\n\
        proxy_set_header X-Verify $ssl_client_verify; proxy_set_header Host inner.example;\n\
        proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-Proto $scheme; } }";
    let imported = import(text).expect("good");
    taken(&imported);
    for line in [
        "remove = [\"X-Remote-User\", \"X-Verify\"]",
        "\"X-User\" = \"{user}\"",
        "\"X-Real-IP\" = \"{client}\"",
        "max_body = \"1MiB\"",
    ] {
        assert!(imported.toml.contains(line), "{line}: {}", imported.toml);
    }
    let told = |words: &str| imported.left.iter().any(|left| left.contains(words));
    assert!(told("$ssl_client_verify") && told("Host inner.example"), "{:#?}", imported.left);
    assert_eq!(imported.left.len(), 2, "{:#?}", imported.left);
}
