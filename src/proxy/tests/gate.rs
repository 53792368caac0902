//! What a service's policy does to requests and responses, from the words of the file to the wire.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::AsyncWriteExt;

use super::protocols::{fetch, http2, post};
use super::secure::{pki, tls};
use super::support::*;
use crate::analysis::scorecard::Row;
use crate::config::{Config, Input, parse};
use crate::edge::policy::Policy;
use crate::model::weight::Side;
use crate::proxy::Settings;
use crate::proxy::tls::Certificates;
use crate::routing::settings::ServiceSettings;
use crate::routing::split::Salt;
use crate::routing::table::{HostPattern, Route, RoutingTable, ServiceEntry};
use crate::telemetry::traffic::Count;

/// A configuration whose service `web` says this.
fn config(text: &str) -> Config {
    let text = format!("[service.web]\nhost = \"*\"\nendpoints = \"1.1.1.1:1\"\n{text}");
    let file = |path: &Path| match path.to_str() {
        Some("users") => Ok(include_str!("users.htpasswd").to_owned()),
        Some("502.html") => Ok("<p>{status} {request_id} {nothing}</p>".to_owned()),
        _ => Err("there is no such file".to_owned()),
    };
    let input = Input {
        name: Path::new("switchback.toml"),
        text: &text,
        variables: &BTreeMap::new(),
        flags: &[],
        read: &file,
    };
    parse(&input).unwrap_or_else(|problems| panic!("{problems}")).config
}

pub fn policy(text: &str) -> Option<Arc<Policy>> {
    let spec = config(text).services[0].policy.clone();
    (!spec.is_empty())
        .then(|| Arc::new(Policy::new(spec, None, &Default::default(), Instant::now())))
}

/// An instance that answers with the head that it got.
async fn echoing() -> std::net::SocketAddr {
    answering(|head, _| {
        format!(
            "HTTP/1.1 200 OK\r\nserver: app/1\r\nx-powered-by: php\r\nx-frame-options: DENY\r\n\
             content-length: {}\r\n\r\n{head}",
            head.len()
        )
        .into_bytes()
    })
    .await
}

pub async fn rig(text: &str) -> Rig {
    rig_with(text, settings()).await
}

async fn rig_with(text: &str, settings: Settings) -> Rig {
    let stable = side(1, &[endpoint(echoing().await)]);
    let rig = Rig::with(stable, None, 0.0, Default::default(), settings);
    rig.publish(|entry| entry.policy = policy(text));
    rig
}

/// An answer to `GET target` with these lines in its header.
pub async fn ask(rig: &Rig, target: &str, lines: &str) -> (String, String) {
    let mut client = Client::new(rig.http()).await;
    client.send(format!("GET {target} HTTP/1.1\r\nhost: app.example\r\n{lines}\r\n")).await;
    client.read().await
}

#[tokio::test]
async fn headers_are_changed_both_ways() {
    let rig = rig(r#"
        security_headers = true
        strip_prefix = "/shop"
        add_prefix = "/v2"
        [service.web.headers]
        set = { X-One = "1", X-Client = "{client}" }
        remove = "X-Powered-By"
        [service.web.request_headers]
        set = { X-Env = "prod", Host = "inner.example", X-Asked = "{host}{uri}" }
        remove = ["X-Debug"]
        [[service.web.route]]
        path = "/shop/cart"
        headers.set = { X-One = "2" }
        request_headers.add = { X-Env = "cart" }
        "#)
    .await;
    let (head, seen) = ask(&rig, "/shop/x?y=/shop", "x-debug: 1\r\nx-env: forged\r\n").await;
    assert_eq!(status(&head), 200);
    assert_eq!(field(&head, "x-one"), Some("1"));
    assert_eq!(field(&head, "x-client"), Some("127.0.0.1"));
    assert_eq!(field(&head, "x-content-type-options"), Some("nosniff"));
    assert_eq!(field(&head, "x-frame-options"), Some("DENY"), "the app's own word stands");
    assert_eq!((field(&head, "server"), field(&head, "x-powered-by")), (None, None));
    assert_eq!(field(&head, "strict-transport-security"), None);
    assert!(seen.starts_with("GET /v2/x?y=/shop HTTP/1.1\r\n"), "{seen}");
    assert_eq!(field(&seen, "host"), Some("inner.example"));
    assert_eq!(field(&seen, "x-forwarded-host"), Some("app.example"));
    assert_eq!(field(&seen, "x-forwarded-prefix"), Some("/shop"));
    assert_eq!(field(&seen, "x-asked"), Some("app.example/shop/x?y=/shop"));
    assert_eq!((field(&seen, "x-env"), field(&seen, "x-debug")), (Some("prod"), None));
    let (head, seen) = ask(&rig, "/shop/cart", "").await;
    assert_eq!(field(&head, "x-one"), Some("2"));
    assert_eq!(seen.matches("x-env: ").count(), 2, "{seen}");
    assert_eq!(rig.rows(Side::Stable, 2).await, [2, 0, 0, 0, 0]);
    // The same over HTTP/2.
    let mut client = http2(rig.http()).await;
    let (head, body) = fetch(&mut client, post("/shop/x", "")).await;
    assert_eq!(head.headers["x-one"], "1");
    assert!(body.starts_with(b"POST /v2/x HTTP/1.1\r\n"), "{body:?}");
}

#[tokio::test]
async fn routes_answer_by_themselves() {
    let rig = rig(r#"
        [service.web.headers]
        set = { X-One = "1" }
        [[service.web.route]]
        path = "/old"
        redirect = "https://new.example{uri}"
        [[service.web.route]]
        exact = "/robots.txt"
        respond = "Disallow: /\n"
        [[service.web.route]]
        header = { User-Agent = ["*badbot*", "curl/*"] }
        status = 403
        [[service.web.route]]
        path = "/admin"
        allow = "10.0.0.0/8"
        [[service.web.route]]
        path = "/api"
        methods = ["POST"]
        [[service.web.route]]
        query = { gone = "*" }
        status = 410
        [[service.web.route]]
        exact = "/empty"
        status = 204
        "#)
    .await;
    let (head, _) = ask(&rig, "/old/a?b=c", "").await;
    assert_eq!(status(&head), 308);
    assert_eq!(field(&head, "location"), Some("https://new.example/old/a?b=c"));
    assert_eq!(field(&head, "x-one"), Some("1"), "its own answers have the headers too");
    let (head, body) = ask(&rig, "/robots.txt", "").await;
    assert_eq!((status(&head), body.as_str()), (200, "Disallow: /\n"));
    assert_eq!(field(&head, "content-type"), Some("text/plain; charset=utf-8"));
    let (head, body) = ask(&rig, "/", "user-agent: Some BadBot/2\r\n").await;
    assert_eq!(status(&head), 403);
    assert!(body.contains("403 Forbidden"), "{body}");
    // However the path is written.
    for path in ["/admin", "/admin/x", "//admin", "/x/../admin", "/%61dmin", "/./admin/"] {
        assert_eq!(status(&ask(&rig, path, "").await.0), 403, "{path}");
    }
    assert_eq!(status(&ask(&rig, "/administrator", "").await.0), 200);
    let (head, _) = ask(&rig, "/api/x", "").await;
    assert_eq!((status(&head), field(&head, "allow")), (405, Some("POST")));
    assert_eq!(status(&ask(&rig, "/?a=b&gone=1", "").await.0), 410);
    let (head, _) = ask(&rig, "/empty", "").await;
    assert_eq!((status(&head), field(&head, "content-length")), (204, None));
    assert_eq!(status(&ask(&rig, "/", "").await.0), 200);
    assert_eq!(rig.total(Count::Denied), 8);
    assert_eq!(rig.total(Count::Answered), 4);
    // Nothing of this says anything about the instance.
    assert_eq!(rig.rows(Side::Stable, 2).await, [2, 0, 0, 0, 0]);
}

#[tokio::test]
async fn cleartext_goes_to_https_with_and_without_a_policy() {
    let pki = pki(&["app.example"]);
    let certificates = Certificates::load(&pki.files).expect("certificates");
    let settings = Settings {
        https: vec![any()],
        tls: Some(certificates),
        trusted_proxies: vec!["127.0.0.1".parse().expect("a network")],
        ..settings()
    };
    let rig = rig_with("", settings).await;
    let https = rig.proxy.addresses().https[0];
    let location = format!("https://app.example:{}/x?y", https.port());
    for text in ["", "security_headers = true\nhsts = \"1d\"\n[tls]\ncert = \"a\"\nkey = \"b\"\n"] {
        rig.publish(|entry| {
            entry.policy = policy(text);
            let mut settings = (*entry.settings).clone();
            settings.to_https = true;
            entry.settings = Arc::new(settings);
        });
        let (head, _) = ask(&rig, "/x?y", "").await;
        assert_eq!((status(&head), field(&head, "location")), (308, Some(location.as_str())));
        assert_eq!(field(&head, "strict-transport-security"), None, "not in cleartext");
        let (head, _) = ask(&rig, "/.well-known/acme-challenge/x", "").await;
        assert_eq!(status(&head), 200, "a certificate authority's question gets through");
        let (head, _) = ask(&rig, "/", "x-forwarded-proto: https\r\n").await;
        assert_eq!(status(&head), 200, "a trusted proxy served https");
        let hsts = (!text.is_empty()).then_some("max-age=86400");
        assert_eq!(field(&head, "strict-transport-security"), hsts);
        let mut stream = tls(https, "app.example", &[b"http/1.1"]).await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: app.example\r\n\r\n").await.expect("to send");
        let (head, _) = read_message(&mut stream, &mut Vec::new()).await.expect("an answer");
        assert_eq!(status(&head), 200);
        assert_eq!(field(&head, "strict-transport-security"), hsts);
    }
}

#[tokio::test]
async fn other_hosts_are_sent_to_the_canonical_one() {
    let rig = rig("canonical_host = \"app.example\"\n").await;
    assert_eq!(status(&ask(&rig, "/", "").await.0), 200);
    let mut client = Client::new(rig.http()).await;
    client.send("GET /x?y HTTP/1.1\r\nhost: www.app.example:81\r\n\r\n").await;
    let (head, _) = client.read().await;
    assert_eq!(field(&head, "location"), Some("http://app.example:81/x?y"));
}

#[tokio::test]
async fn too_many_requests_are_told_when_to_come_again() {
    let rig = rig(r#"
        rate_limit = "2/h burst 2 by header:x-key"
        [[service.web.route]]
        path = "/free"
        rate_limit = "off"
        "#)
    .await;
    let mut client = Client::new(rig.http()).await;
    for _ in 0..2 {
        assert_eq!(status(&client.get("/").await.0), 200);
    }
    let (head, body) = client.get("/").await;
    assert_eq!(status(&head), 429);
    let wait: u64 = field(&head, "retry-after").expect("a time").parse().expect("seconds");
    assert!((1_790..=1_800).contains(&wait), "{wait}");
    assert!(body.contains("Too Many Requests"), "{body}");
    assert_eq!(status(&client.get("/free").await.0), 200);
    assert_eq!(status(&ask(&rig, "/", "x-key: another\r\n").await.0), 200);
    assert_eq!(rig.total(Count::Limited), 1);
    // A change of weight or health publishes the same policy: nothing is forgotten.
    rig.publish(|entry| entry.salt = Salt::new(8));
    assert_eq!(status(&client.get("/").await.0), 429);
}

#[tokio::test]
async fn workers_share_one_limit() {
    let settings = Settings { workers: 4, ..settings() };
    let rig = rig_with("rate_limit = \"1/h burst 10\"\n", settings).await;
    let mut passed = 0;
    for _ in 0..60 {
        // Each on a connection of its own, which the kernel gives to any worker.
        passed += u32::from(status(&ask(&rig, "/", "").await.0) == 200);
    }
    assert_eq!(passed, 10);
}

#[tokio::test]
async fn requests_in_flight_are_counted_until_they_end() {
    let (release, waits) = tokio::sync::watch::channel(false);
    let address = origin(move |mut stream, _| {
        let mut waits = waits.clone();
        async move {
            let mut buffer = Vec::new();
            while let Some((head, _)) = read_message(&mut stream, &mut buffer).await {
                if head.starts_with("GET /slow") {
                    let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na";
                    let _ = stream.write_all(begun).await;
                    let _ = waits.wait_for(|go| *go).await;
                    let _ = stream.write_all(b"b").await;
                } else {
                    let _ = stream.write_all(&ok("x")).await;
                }
            }
        }
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    rig.publish(|entry| entry.policy = policy("max_in_flight = \"1\"\n"));
    let mut slow = Client::new(rig.http()).await;
    slow.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(status(&slow.read_head().await), 200);
    assert_eq!(slow.read_body(1).await, "a");
    let (head, _) = ask(&rig, "/", "").await;
    assert_eq!((status(&head), field(&head, "retry-after")), (429, Some("1")));
    release.send(true).expect("somebody waits");
    assert_eq!(slow.read_body(1).await, "b");
    let mut code = 0;
    for _ in 0..1_000 {
        code = status(&ask(&rig, "/", "").await.0);
        if code == 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(code, 200, "it is not counted any more");
}

#[tokio::test]
async fn an_error_has_the_services_own_page() {
    let rig = Rig::new(side(1, &[endpoint(nobody().await)]));
    rig.publish(|entry| {
        entry.policy =
            policy("error_pages = { 502 = \"502.html\" }\nheaders.set = { X = \"1\" }\n");
    });
    let (head, body) = ask(&rig, "/", "accept: text/html\r\n").await;
    let id = field(&head, "x-request-id").expect("an id");
    assert_eq!((status(&head), body), (502, format!("<p>502 {id} {{nothing}}</p>")));
    assert_eq!(field(&head, "x"), Some("1"));
    let (head, body) = ask(&rig, "/", "accept: application/json\r\n").await;
    assert_eq!(field(&head, "content-type"), Some("application/problem+json"));
    assert!(body.contains("\"status\":502"), "{body}");
}

#[tokio::test]
async fn a_route_has_times_of_its_own_and_may_lead_elsewhere() {
    let slow = origin(|mut stream, _| async move {
        let _ = read_message(&mut stream, &mut Vec::new()).await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut web = Rig::new(side(1, &[endpoint(slow)])).entry.lock().expect("no panic").clone();
    web.policy = policy(
        "[[service.web.route]]\npath = \"/quick\"\nresponse_timeout = \"200ms\"\nretries = 0\n\
         [[service.web.route]]\nmethod = \"GET\"\nheader = { X-Beta = \"1\" }\nservice = \"web\"\n",
    );
    let rig = Rig::new(side(1, &[endpoint(slow)]));
    let other = side(7, &[endpoint(saying("other").await)]);
    let beta = ServiceEntry {
        name: crate::model::id::ServiceName::new("beta").expect("a name"),
        stable: Some(other.clone()),
        policy: None,
        ..web.clone()
    };
    web.policy = {
        let mut spec = web.policy.as_ref().expect("a policy").spec().clone();
        spec.routes[1].leads_to = Some(beta.name.clone());
        Some(Arc::new(Policy::new(spec, None, &Default::default(), Instant::now())))
    };
    let route = |host| Route { host, path: "/".to_owned() };
    rig.live.publish(RoutingTable::new(
        2,
        vec![
            (web, vec![route(HostPattern::Any)]),
            (beta, vec![route(HostPattern::Exact("beta.example".to_owned()))]),
        ],
    ));
    let begun = Instant::now();
    assert_eq!(status(&ask(&rig, "/quick", "").await.0), 504);
    assert!(begun.elapsed() < std::time::Duration::from_secs(15), "the service has a minute");
    assert_eq!(ask(&rig, "/x", "x-beta: 1\r\n").await.1, "other");
    until(|| other.scorecard.sample().count(Row::Success) == 1).await;
}

#[tokio::test]
async fn who_is_led_elsewhere_meets_what_is_asked_there() {
    let rig = Rig::new(side(1, &[endpoint(saying("web").await)]));
    let mut web = rig.entry.lock().expect("no panic").clone();
    web.policy = policy("[[service.web.route]]\npath = \"/\"\nservice = \"web\"\n");
    let strict = |settings: ServiceSettings| ServiceEntry {
        name: crate::model::id::ServiceName::new("strict").expect("a name"),
        settings: Arc::new(settings),
        policy: None,
        ..web.clone()
    };
    let shut = ServiceSettings { client_certificate: true, ..ServiceSettings::default() };
    let small = ServiceSettings { max_body: 3, ..ServiceSettings::default() };
    for (settings, code) in [(shut, 403), (small, 413)] {
        let strict = strict(settings);
        let mut web = web.clone();
        web.policy = {
            let mut spec = web.policy.as_ref().expect("a policy").spec().clone();
            spec.routes[0].leads_to = Some(strict.name.clone());
            Some(Arc::new(Policy::new(spec, None, &Default::default(), Instant::now())))
        };
        let rig = Rig::new(side(1, &[endpoint(saying("web").await)]));
        let route = |host| Route { host, path: "/".to_owned() };
        rig.live.publish(RoutingTable::new(
            2,
            vec![
                (web, vec![route(HostPattern::Any)]),
                (strict, vec![route(HostPattern::Exact("strict.example".to_owned()))]),
            ],
        ));
        let mut client = Client::new(rig.http()).await;
        client.send("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody").await;
        assert_eq!(status(&client.read().await.0), code);
    }
}

#[tokio::test]
async fn a_name_and_a_password_let_in() {
    let rig = rig(r#"
        basic_auth = "users"
        realm = "staff \"only\""
        request_headers.set = { X-User = "{user}" }
        [[service.web.route]]
        path = "/open"
        basic_auth = "off"
        "#)
    .await;
    let (head, body) = ask(&rig, "/", "").await;
    assert_eq!(status(&head), 401);
    assert_eq!(
        field(&head, "www-authenticate"),
        Some("Basic realm=\"staff only\", charset=\"UTF-8\"")
    );
    assert!(body.contains("A name and a password"), "{body}");
    // bcrypt:open sesame
    let right = "authorization: Basic YmNyeXB0Om9wZW4gc2VzYW1l\r\nx-user: root\r\n";
    let (head, seen) = ask(&rig, "/", right).await;
    assert_eq!((status(&head), field(&seen, "x-user")), (200, Some("bcrypt")));
    let wrong = "authorization: Basic YmNyeXB0Om9wZW4gc2VzYW0=\r\n";
    assert_eq!(status(&ask(&rig, "/", wrong).await.0), 401);
    let (head, seen) = ask(&rig, "/open", "x-user: root\r\n").await;
    assert_eq!((status(&head), field(&seen, "x-user")), (200, None));
    assert_eq!(rig.total(Count::Denied), 2);
}

#[tokio::test]
async fn another_server_is_asked_before() {
    let seen = Arc::new(std::sync::Mutex::new(String::new()));
    let log = Arc::clone(&seen);
    let auth = answering(move |head, _| {
        *log.lock().expect("no panic") = head.to_owned();
        match field(head, "cookie") {
            Some("session=good") => {
                b"HTTP/1.1 200 OK\r\nx-user: ann\r\ncontent-length: 2\r\n\r\nok".to_vec()
            }
            _ => b"HTTP/1.1 302 Found\r\nlocation: /login\r\nset-cookie: a=b\r\n\
                   connection: x-hop\r\nx-hop: 1\r\ncontent-length: 5\r\n\r\nlogin"
                .to_vec(),
        }
    })
    .await;
    let rig = rig(&format!(
        "forward_auth = \"http://{auth}/check?app=web\"\n\
         forward_auth_headers = [\"X-User\", \"X-Groups\"]\n"
    ))
    .await;
    let forged = "x-user: root\r\nx-groups: admins\r\nx-forwarded-uri: /public\r\n";
    let (head, body) = ask(&rig, "/a?b=c", forged).await;
    assert_eq!((status(&head), body.as_str()), (302, "login"));
    assert_eq!((field(&head, "location"), field(&head, "x-hop")), (Some("/login"), None));
    let asked = seen.lock().expect("no panic").clone();
    assert!(asked.starts_with("GET /check?app=web HTTP/1.1\r\n"), "{asked}");
    for (name, value) in [
        ("host", auth.to_string().as_str()),
        ("x-forwarded-method", "GET"),
        ("x-forwarded-uri", "/a?b=c"),
        ("x-forwarded-host", "app.example"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
    ] {
        assert_eq!(field(&asked, name), Some(value), "{name}: {asked}");
    }
    let (head, body) = ask(&rig, "/a", &format!("{forged}cookie: session=good\r\n")).await;
    assert_eq!((status(&head), field(&body, "x-user")), (200, Some("ann")), "{body}");
    assert_eq!(field(&body, "x-groups"), None, "what the answer does not say, nobody says");
    // Nor does a client say what a proxy would: whoever is asked might believe that first.
    let lies = "x-original-url: /public\r\nx-original-method: GET\r\nx-real-ip: 10.0.0.1\r\n\
                forwarded: for=10.0.0.1\r\nx-forwarded-port: 1\r\nx-forwarded-for: 10.0.0.1\r\n";
    ask(&rig, "/a", &format!("{lies}cookie: session=good\r\n")).await;
    let asked = seen.lock().expect("no panic").clone();
    for name in
        ["x-original-url", "x-original-method", "x-real-ip", "forwarded", "x-forwarded-port"]
    {
        assert_eq!(field(&asked, name), None, "{name}: {asked}");
    }
    assert_eq!(field(&asked, "x-forwarded-for"), Some("127.0.0.1"));
    // A body goes to the app and not to who is asked.
    let mut client = Client::new(rig.http()).await;
    client
        .send(
            "POST /p HTTP/1.1\r\nhost: a\r\ncookie: session=good\r\ncontent-length: 4\r\n\r\nbody",
        )
        .await;
    assert_eq!(status(&client.read().await.0), 200);
    assert_eq!(field(&seen.lock().expect("no panic"), "content-length"), None);
    assert_eq!(rig.total(Count::Denied), 1);
    // When nobody answers, nobody goes on.
    let gone = nobody().await;
    rig.publish(|entry| entry.policy = policy(&format!("forward_auth = \"http://{gone}\"\n")));
    assert_eq!(status(&ask(&rig, "/", "cookie: session=good\r\n").await.0), 502);
}
