//! What is done to requests: what routes inherit, and what they say otherwise.

use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::*;
use crate::edge::facts::Facts;
use crate::edge::policy::Policy;
use crate::edge::rules::{Act, Rules};

const TLS: &str = "[tls]\ncert = \"a\"\nkey = \"b\"\n";

fn policy(text: &str) -> crate::edge::rules::Spec {
    read(&format!("{WEB}{text}")).services[0].policy.clone()
}

#[test]
fn a_service_without_such_keys_has_no_policy() {
    assert!(policy("").is_empty());
    assert!(!policy("security_headers = true").is_empty());
    assert!(policy("security_headers = false\nhsts = \"off\"").is_empty());
}

#[test]
fn cleartext_is_sent_to_https_when_that_is_served() {
    let to_https = |text: &str| read(text).services[0].settings.to_https;
    assert!(!to_https(WEB));
    assert!(to_https(&format!("{TLS}{WEB}")));
    assert!(!to_https(&format!("{TLS}{WEB}https_redirect = false\n")));
    assert!(!to_https(&format!("[listen]\nhttps = \"off\"\n{TLS}{WEB}")));
    let proxied =
        format!("[listen]\ntrusted_proxies = \"10.0.0.0/8\"\n{WEB}https_redirect = true\n");
    assert!(to_https(&proxied));
    let spec = read(&format!("{TLS}{WEB}")).services[0].policy.clone();
    assert!(spec.is_empty(), "by itself it is no policy");
}

#[test]
fn a_route_says_only_what_differs() {
    let spec = policy(
        r#"
        hsts = "365d include-subdomains preload"
        security_headers = true
        allow = ["file:office.txt", "loopback"]
        rate_limit = ["10/s burst 20", "100/m by header:X-Api-Key"]
        limits_exempt = "private"
        basic_auth = "users.htpasswd"
        realm = "staff"
        error_pages = { 404 = "pages/404.html", 5xx = "pages/5xx.html" }
        [service.web.headers]
        set = { A = "1" }
        [[service.web.route]]
        path = ["/api", "/v1"]
        method = ["POST", "PUT"]
        header = { X-Beta = ["1", "yes*"] }
        query = { v = "2" }
        host = ["app.example.com", "*.example.org"]
        strip_prefix = "/api"
        response_timeout = "5m"
        retries = 0
        rate_limit = "off"
        headers.set = { A = "2", B = "{client}" }
        request_headers = { remove = ["X-Debug"], set = { X-User = "{user}" } }
        [[service.web.route]]
        exact = "/health/"
        basic_auth = "off"
        status = 204
        [[service.web.route]]
        glob = "*.php"
        redirect = "/new{path}"
        status = 301
        security_headers = false
        hsts = "off"
        allow = []
        [[service.web.route]]
        path = "/robots.txt"
        respond = "no"
        content_type = "text/x"
        [[service.web.route]]
        path = "/web"
        service = "web"
        "#,
    );
    let base = &spec.base;
    let hsts = base.hsts.as_ref().map(|value| value.to_str().expect("text"));
    assert_eq!(hsts, Some("max-age=31536000; includeSubDomains; preload"));
    assert_eq!((base.limits.rates.len(), base.pages.len()), (2, 2));
    for (client, admitted) in
        [("203.0.113.9", true), ("2001:db8::7", true), ("::1", true), ("198.51.100.1", false)]
    {
        assert_eq!(base.access.admits(client.parse().expect("an address")), admitted, "{client}");
    }
    assert_eq!(base.users.as_ref().map(|users| users.realm.as_str()), Some("staff"));
    let [api, health, php, robots, web] = spec.routes.as_slice() else { panic!("five routes") };
    assert_eq!((api.rules.hsts.clone(), api.rules.security_headers), (base.hsts.clone(), true));
    assert_eq!(api.rules.times.response, Some(Duration::from_secs(300)));
    assert_eq!((api.rules.times.retries, api.rules.times.idle), (Some(0), None));
    assert!(api.own_limits && api.rules.limits.rates.is_empty() && !health.own_limits);
    assert_eq!(api.matcher.methods, [Method::POST, Method::PUT]);
    let answer = |status, body: Option<(&str, &'static str)>| Act::Respond {
        status: StatusCode::from_u16(status).expect("a status"),
        body: body.map(|(body, kind)| (body.to_owned().into(), HeaderValue::from_static(kind))),
    };
    assert_eq!(health.rules.act, answer(204, None));
    assert!(health.rules.users.is_none() && api.rules.users == base.users);
    assert_eq!(robots.rules.act, answer(200, Some(("no", "text/x"))));
    assert!(matches!(&php.rules.act, Act::Redirect { status, .. } if *status == 301));
    assert_eq!((php.rules.hsts.clone(), php.rules.security_headers), (None, false));
    assert!(!php.rules.access.admits([127, 0, 0, 1].into()), "an empty list admits nobody");
    assert_eq!(web.leads_to, ServiceName::new("web").ok());

    // As a whole, on a request.
    let policy = Policy::new(spec, None, &Default::default(), std::time::Instant::now());
    let (uri, request_id) = ("/api/x?v=2".parse().expect("a target"), "id".parse().expect("an id"));
    let facts = Facts {
        client: [127, 0, 0, 1].into(),
        host: "x.example.org",
        method: &Method::POST,
        uri: &uri,
        secure: true,
        certificate: false,
        request_id: &request_id,
        user: None,
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-beta", HeaderValue::from_static("YES please"));
    let rule = policy.rule(&facts, &headers);
    assert_eq!(rule.rules.rewrite.strip.as_deref(), Some("/api"));
    let mut response = HeaderMap::new();
    rule.response.apply(&mut response, Some(&facts));
    assert_eq!(
        (&response["a"], &response["b"]),
        (&"2".parse().unwrap(), &"127.0.0.1".parse().unwrap())
    );
    let mut request = HeaderMap::new();
    request.insert("x-debug", HeaderValue::from_static("1"));
    request.insert("x-user", HeaderValue::from_static("root"));
    rule.rules.request.apply(&mut request, Some(&facts));
    assert!(request.is_empty(), "{request:?}");
}

#[test]
fn a_switch_is_a_variable_too() {
    let variables = [("SWITCHBACK_SERVICE_WEB_SECURITY_HEADERS", "true")];
    let read = parsed(WEB, &variables, &["service.web.rate_limit=5/s"]);
    let base = &read.config.services[0].policy.base;
    assert!(base.security_headers && base.limits.rates.len() == 1);
    assert_ne!(*base, Rules::default());
}

#[test]
fn the_access_log_is_off_until_it_has_a_place() {
    assert_eq!(read(WEB).access_log, None);
    assert_eq!(read(&format!("{WEB}[access_log]\nformat = \"combined\"\n")).access_log, None);
    let log = |text: &str| read(&format!("{WEB}[access_log]\n{text}")).access_log.expect("a log");
    let stdout = log("to = \"stdout\"\nsample = \"25%\"\nhide = \"query\"\n");
    assert_eq!((stdout.file, stdout.sample, stdout.hide), (None, 0.25, vec!["query"]));
    let file =
        log("to = \"logs/a.log\"\nrotate_size = \"1MiB\"\nrotate_every = \"day\"\nkeep = 3\n");
    assert_eq!(file.file.as_deref(), Some(Path::new("conf/logs/a.log")));
    assert_eq!((file.rotate_size, file.rotate_every, file.keep), (1 << 20, RotateEvery::Day, 3));
    assert!(!file.combined && file.hide.is_empty());
}

#[test]
fn trusted_proxies_have_names_and_files() {
    let text = format!("[listen]\ntrusted_proxies = [\"cloudflare\", \"file:office.txt\"]\n{WEB}");
    let trusted = read(&text).listen.trusted_proxies;
    let is_trusted = |address: &str| {
        let address = address.parse().expect("an address");
        trusted.iter().any(|network| network.contains(address))
    };
    assert!(is_trusted("104.16.1.1") && is_trusted("2606:4700::1") && is_trusted("203.0.113.1"));
    assert!(!is_trusted("10.0.0.1"));
}

#[test]
fn who_clients_are_is_said_in_words() {
    let listen = |text: &str| read(&format!("[listen]\n{text}{WEB}")).listen;
    assert_eq!(read(WEB).listen.client_header, "x-forwarded-for");
    let addresses = ["0.0.0.0:80", "0.0.0.0:443"].map(|text| text.parse().expect("an address"));
    let is_on =
        |listen: &crate::config::Listen| addresses.map(|at| listen.proxy_protocol.is_on(at));
    assert_eq!(is_on(&read(WEB).listen), [false, false]);
    let some = listen(
        "trusted_proxies = \"private\"\nclient_header = \"CF-Connecting-IP\"\n\
         proxy_protocol = \"0.0.0.0:80\"\nconnections_exempt = \"loopback\"\n",
    );
    assert_eq!(some.client_header, "cf-connecting-ip");
    assert_eq!(is_on(&some), [true, false]);
    assert!(some.connections_exempt.contains([127, 0, 0, 1].into()));
    let all = listen("trusted_proxies = \"private\"\nproxy_protocol = \"all\"\n");
    assert_eq!(is_on(&all), [true, true]);
    let told = read(&format!("{WEB}proxy_protocol = \"v2\"\nforwarded = true\n"));
    assert_eq!(told.services[0].template.preamble, crate::model::preamble::Preamble::V2);
    assert!(told.services[0].settings.forwarded && !read(WEB).services[0].settings.forwarded);
}

#[test]
fn files_and_codings_are_read() {
    use crate::edge::coding::Coding;
    use crate::edge::files::{Files, Missing};
    let spec = policy(
        r#"
        compress = true
        [[service.web.route]]
        path = "/assets"
        files = "public"
        missing = "/index.html"
        compress = ["br", "gzip"]
        [[service.web.route]]
        path = "/old"
        files = "/srv/old"
        index = "start.htm"
        missing = "app"
        service = "web"
        compress = false
        "#,
    );
    assert_eq!(spec.base.compress, Coding::ALL);
    let acts: Vec<_> = spec.routes.iter().map(|route| route.rules.act.clone()).collect();
    let files = |root: &str, index: &str, missing| {
        Act::Files(std::sync::Arc::new(Files { root: root.into(), index: index.into(), missing }))
    };
    assert_eq!(
        acts,
        [
            files("conf/public", "index.html", Missing::File("index.html".into())),
            files("/srv/old", "start.htm", Missing::App),
        ]
    );
    assert_eq!(spec.routes[0].rules.compress, [Coding::Brotli, Coding::Gzip]);
    assert!(spec.routes[1].rules.compress.is_empty());
    let variables = [("SWITCHBACK_SERVICE_WEB_COMPRESS", "true")];
    assert_eq!(parsed(WEB, &variables, &[]).config.services[0].policy.base.compress.len(), 3);
    let flags = parsed(WEB, &[], &["service.web.compress=gzip,br"]);
    assert_eq!(flags.config.services[0].policy.base.compress, [Coding::Gzip, Coding::Brotli]);
}

#[test]
fn directories_of_files_that_are_named_are_read() {
    use crate::edge::send_file::SendFile;
    let spec = policy(
        r#"
        send_file = { "/protected/" = "files", "/app/storage" = "/srv/storage" }
        [[service.web.route]]
        path = "/a"
        [[service.web.route]]
        path = "/b"
        send_file = { "/other" = "/srv/other" }
        [[service.web.route]]
        path = "/c"
        send_file = {}
        "#,
    );
    let of = |places: &[(&str, &str)]| {
        SendFile::new(places.iter().map(|(name, root)| ((*name).to_owned(), (*root).into())))
    };
    let all = of(&[("/protected", "conf/files"), ("/app/storage", "/srv/storage")]);
    assert_eq!(spec.base.send_file, all);
    let routes: Vec<_> = spec.routes.iter().map(|route| route.rules.send_file.clone()).collect();
    assert_eq!(routes, [all, of(&[("/other", "/srv/other")]), SendFile::default()]);
    assert!(policy("send_file = {}").is_empty());
}

#[test]
fn who_answers_everything_by_routes_needs_nothing_to_run() {
    let service = |routes: &str| format!("[service.web]\nhost = \"a.example\"\n{routes}");
    let all = "[[service.web.route]]\npath = \"/\"\n";
    for routes in [
        format!("{all}redirect = \"https://b.example{{uri}}\"\n"),
        format!("{all}files = \"public\"\nmissing = \"/index.html\"\n"),
        format!("[[service.web.route]]\nexact = \"/x\"\nstatus = 204\n{all}respond = \"hello\"\n"),
    ] {
        let config = read(&service(&routes));
        assert!(config.services[0].answers_alone(), "{routes}");
    }
    let bad = |text: &str| read_with(text, &[], &[]).expect_err(text).to_string();
    for routes in [
        "",
        "[[service.web.route]]\npath = \"/a\"\nstatus = 204\n",
        "[[service.web.route]]\npath = \"/\"\nmethod = \"GET\"\nstatus = 204\n",
        "[[service.web.route]]\npath = \"/\"\nfiles = \"public\"\nmissing = \"app\"\n",
        "[[service.web.route]]\npath = \"/a\"\nrate_limit = \"1/s\"\n\
         [[service.web.route]]\npath = \"/\"\nstatus = 204\n",
    ] {
        let problems = bad(&service(routes));
        assert!(problems.contains("does not say what to run"), "{routes}: {problems}");
        assert_eq!(problems.contains("nothing need run"), !routes.is_empty(), "{problems}");
    }
    let port = bad(&format!("{}port = 3000\n{all}status = 204\n", service("")));
    assert!(port.contains("nothing is launched here"), "{port}");
}
