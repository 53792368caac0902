//! The keys of what is done to requests, of a service and of its routes.

use super::Shape::{
    Choice, Duration, Integer, Map, Patterns, Size, Switch, SwitchOrList, Table, Text, TextOrList,
};
use super::{Key, key};

/// One table of keys after another.
pub(super) const fn joined<const N: usize>(first: &[Key], second: &[Key]) -> [Key; N] {
    let mut all = [key("", Text, "", ""); N];
    let mut at = 0;
    while at < N {
        all[at] = if at < first.len() { first[at] } else { second[at - first.len()] };
        at += 1;
    }
    all
}

/// `[[service.NAME.route]]`.
pub const ROUTE: &[Key] = &joined::<{ ROUTE_OWN.len() + RULES.len() }>(ROUTE_OWN, RULES);

/// What a service has of it.
pub(super) const OF_SERVICE: &[Key] = &joined::<{ TOLD.len() + RULES.len() }>(TOLD, RULES);

/// What a service's instances are told about its clients.
const TOLD: &[Key] = &[
    key(
        "proxy_protocol",
        Choice(&["off", "v1", "v2"]),
        r#""off""#,
        "Tells instances who the client is by a PROXY protocol header before each connection; each request then has a connection of its own.",
    ),
    key(
        "forwarded",
        Switch,
        "false",
        "Tells instances who the client is by Forwarded (RFC 7239) too, beside X-Forwarded-*.",
    ),
];

/// Keys that a service and each of its routes have.
pub(super) const RULES: &[Key] = &[
    key(
        "https_redirect",
        Switch,
        "",
        "Whether cleartext requests are sent to https, but for those of certificate authorities; true when `listen.https` is open.",
    ),
    key(
        "hsts",
        Text,
        r#""off""#,
        "How long browsers shall use https alone: \"365d\", \"365d include-subdomains preload\", or \"off\".",
    ),
    key(
        "security_headers",
        Switch,
        "false",
        "Tells browsers what is right for any site, where the app says nothing itself, and hides Server and X-Powered-By.",
    ),
    key(
        "headers",
        Table(EDITS),
        "",
        "Changes to the header of responses; a route's come after those of its service.",
    ),
    key(
        "request_headers",
        Table(EDITS),
        "",
        "Changes to the header of requests on their way to the app.",
    ),
    key(
        "strip_prefix",
        Text,
        "",
        "Taken off the path of requests on their way to the app, which finds it in X-Forwarded-Prefix.",
    ),
    key("add_prefix", Text, "", "Put before the path of requests on their way to the app."),
    key(
        "allow",
        TextOrList,
        "",
        "Networks that may come, no others: \"10.0.0.0/8\", \"file:office.txt\", \"private\", \"loopback\", \"cloudflare\".",
    ),
    key("deny", TextOrList, "", "Networks that may not come, written as those of `allow`."),
    key("methods", TextOrList, "", "Methods that may be used; others are answered 405."),
    key(
        "rate_limit",
        TextOrList,
        "",
        "Requests over time, beyond which 429 is answered: \"10/s burst 20 by client-address\", also by header:NAME or by everyone, or \"off\".",
    ),
    key(
        "max_in_flight",
        TextOrList,
        "",
        "Requests at a time, beyond which 429 is answered: \"10 by client-address\", written as `rate_limit`.",
    ),
    key(
        "limits_exempt",
        TextOrList,
        "",
        "Networks that `rate_limit` and `max_in_flight` do not count, written as those of `allow`.",
    ),
    key(
        "basic_auth",
        Text,
        "",
        "File of names and passwords that let a client come, made with `htpasswd -B`, or \"off\".",
    ),
    key("realm", Text, r#""restricted""#, "What the dialog for name and password says."),
    key(
        "forward_auth",
        Text,
        "",
        "Server that is asked before, 128 questions at a time on each worker: 2xx lets a request go on, anything else is what the client gets. \"http://127.0.0.1:4180/auth\", or \"off\".",
    ),
    key(
        "forward_auth_headers",
        TextOrList,
        "[]",
        "Fields of its answer that the request goes on with, in place of the client's.",
    ),
    key(
        "compress",
        SwitchOrList,
        "false",
        "Whether pages, scripts and the like are made smaller for clients that take that: true, or the codings in the order of your preference, [\"zstd\", \"br\", \"gzip\"]. Not for pages that show a secret beside what was asked (BREACH).",
    ),
    key(
        "send_file",
        Map,
        "",
        "Directories whose files the app sends by naming them in X-Accel-Redirect or X-Sendfile, by what their names begin with; the header goes no further.",
    ),
    key(
        "error_pages",
        Map,
        "",
        "Files to show in place of our own pages, by status; {status} and {request_id} are filled in.",
    ),
];

/// `[access_log]`.
pub const ACCESS_LOG: &[Key] = &[
    key(
        "to",
        Text,
        r#""off""#,
        "Where to write a line for each request: \"stdout\", a file, or \"off\".",
    ),
    key(
        "format",
        Choice(&["json", "combined"]),
        r#""json""#,
        "\"combined\" is that of nginx and Apache.",
    ),
    key(
        "sample",
        Text,
        r#""100%""#,
        "The share of requests that is logged; those with a status of 500 and above always are.",
    ),
    key(
        "hide",
        TextOrList,
        "[]",
        "Fields to leave out: client, host, query, referer, user, user_agent.",
    ),
    key(
        "rotate_size",
        Size,
        r#""100MiB""#,
        "The file is rotated when it would be larger; 0 is never.",
    ),
    key(
        "rotate_every",
        Choice(&["off", "hour", "day"]),
        r#""off""#,
        "The file is rotated with the hour or the day as well.",
    ),
    key(
        "keep",
        Integer(1, 10_000),
        "10",
        "How many rotated files are kept, as NAME.1, the newest, and so on.",
    ),
];

/// `[service.NAME.headers]` and the like.
pub const EDITS: &[Key] = &[
    key(
        "set",
        Map,
        "",
        "In place of what is there; {client}, {host}, {path}, {uri}, {scheme}, {user} and the like are filled in.",
    ),
    key("default", Map, "", "Only where nothing is there."),
    key("add", Map, "", "Beside what is there."),
    key("remove", TextOrList, "", "Names of fields to take away."),
];

/// Keys that only a route has.
pub(super) const ROUTE_OWN: &[Key] = &[
    key("host", TextOrList, "", "Hosts of the service that this route is for: one, or a list."),
    key("path", TextOrList, "", "Path prefixes that this route is for."),
    key("exact", TextOrList, "", "Paths that this route is for, without what is below them."),
    key(
        "glob",
        TextOrList,
        "",
        "Paths that this route is for, with stars: \"*.php\"; \"(?i)*.php\" in any case.",
    ),
    key("method", TextOrList, "", "Methods that this route is for."),
    key(
        "header",
        Patterns,
        "",
        "Header fields that this route is for, with stars and in any case; of a list one must fit.",
    ),
    key(
        "query",
        Patterns,
        "",
        "Parameters of the query that this route is for, with stars; of a list one must fit.",
    ),
    key(
        "client_certificate",
        Choice(&["any", "required"]),
        r#""any""#,
        "\"required\" refuses requests without a verified client certificate (403), where the service takes any; needs `tls.client_auth`.",
    ),
    key(
        "service",
        Text,
        "",
        "Another service whose instances answer, by the rules of this one; its own `client_certificate` and `max_body` hold, too.",
    ),
    key(
        "redirect",
        Text,
        "",
        "Where to send the client: \"https://new.example.com{uri}\". The status is 308 unless `status` says otherwise.",
    ),
    key("files", Text, "", "Directory whose files are answers, by the path of the request."),
    key("index", Text, r#""index.html""#, "The file that stands for a directory."),
    key(
        "missing",
        Text,
        r#""404""#,
        "What becomes of requests for a file that is not there: \"404\", \"app\" asks the app, \"/index.html\" is sent instead.",
    ),
    key("respond", Text, "", "Text to answer with, without asking the app; the status is 200."),
    key(
        "status",
        Integer(200, 599),
        "",
        "Status of `redirect` or `respond`; alone it is answered with a page.",
    ),
    key("content_type", Text, "", "Type of what `respond` says; text otherwise."),
    key("connect_timeout", Duration, "", "For a connection to an instance."),
    key(
        "response_timeout",
        Duration,
        "",
        "From the end of a request to the header of its response.",
    ),
    key("idle_timeout", Duration, "", "Without a byte in either direction, on bodies and tunnels."),
    key(
        "retries",
        Integer(0, 10),
        "",
        "Further endpoints that a request may be tried on, when that is safe.",
    ),
];
