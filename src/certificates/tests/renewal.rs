//! Renewal when the authority says so (RFC 9773), against an authority that is only its answers.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use instant_acme::{Account, BodyWrapper, BytesResponse, Error, HttpClient, NewAccount};

use super::support::*;
use crate::certificates::account::Desk;
use crate::certificates::local;
use crate::store::records::{CertificateRecord, Hidden};
use crate::store::redb::RedbStore;
use crate::store::{Change, Store as _};

const DIRECTORY: &str = "https://ca.example/dir";

/// Answers by path, and keeps what was asked.
#[derive(Clone, Default)]
struct Answers {
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl HttpClient for Answers {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let asked = Arc::clone(&self.asked);
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            let jose: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let payload = jose["payload"].as_str().unwrap_or_default();
            let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).expect("base64url");
            let payload = String::from_utf8(payload).expect("JSON");
            asked.lock().expect("no panic").push((path.clone(), payload));
            let url = |path: &str| format!("https://ca.example/{path}");
            let answer = Response::builder().header("replay-nonce", "n1");
            let answer = match path.as_str() {
                "/dir" => answer.body(
                    serde_json::json!({
                        "newNonce": url("nonce"), "newAccount": url("account"),
                        "newOrder": url("order"), "renewalInfo": url("renewal"),
                    })
                    .to_string(),
                ),
                "/nonce" => answer.body(String::new()),
                "/account" => {
                    answer.status(201).header("location", url("account/1")).body("{}".to_owned())
                }
                // The certificate was compromised: renew it now.
                path if path.starts_with("/renewal/") => answer.header("retry-after", "3600").body(
                    serde_json::json!({ "suggestedWindow": {
                        "start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z",
                    }})
                    .to_string(),
                ),
                _ => answer.status(403).body(
                    serde_json::json!({
                        "type": "urn:ietf:params:acme:error:rateLimited",
                        "detail": "too many of them", "status": 403,
                    })
                    .to_string(),
                ),
            };
            let answer = answer.expect("a response").map(|text| Full::new(Bytes::from(text)));
            Ok(BytesResponse::from(answer))
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_says_now_is_heeded() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = local::make(SystemTime::now()).expect("a CA");
    let (chain, key) =
        local::sign(&authority, "app.example", SystemTime::now()).expect("a certificate");
    let record = CertificateRecord {
        name: "app.example".to_owned(),
        source: "acme".to_owned(),
        chain,
        key: Hidden(key),
    };
    let mut store = RedbStore::open(dir.path()).expect("a store");
    store.write(&[Change::Certificate(Box::new(record))]).expect("written");
    drop(store);
    let answers = Answers::default();
    let new =
        NewAccount { contact: &[], terms_of_service_agreed: true, only_return_existing: false };
    let (account, _) = Account::builder_with_http(Box::new(answers.clone()))
        .create(&new, DIRECTORY.to_owned(), None)
        .await
        .expect("an account");
    let text = format!(
        "[acme]\nemail = \"a@app.example\"\ndirectory = {DIRECTORY:?}\n{}",
        service(&["app.example"])
    );
    let rig = Rig::with(dir.path(), config(&text), |_| Desk::open(DIRECTORY, account));
    let shown = rig.shown("app.example").await;
    assert!(shown.is_some(), "served from the first moment");
    let failing = rig.until("app.example", "failing").await;
    let note = failing.note.expect("a note");
    assert!(note.contains("too many of them"), "{note}");
    assert!(note.contains("the former one serves until"), "{note}");
    assert_eq!(rig.shown("app.example").await, shown);
    let asked = answers.asked.lock().expect("no panic").clone();
    let renewal = asked.iter().find(|(path, _)| path.starts_with("/renewal/")).expect("asked");
    let orders: Vec<_> = asked.iter().filter(|(path, _)| path == "/order").collect();
    let name = renewal.0.strip_prefix("/renewal/").expect("a name");
    let (key, serial) = name.split_once('.').expect("two parts");
    assert!(!key.is_empty() && !serial.is_empty(), "{name}");
    assert!(orders[0].1.contains(&format!("\"replaces\":\"{name}\"")), "{orders:?}");
    // Rate limited: an hour at least, although the first pause is a second.
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    let after = answers.asked.lock().expect("no panic").clone();
    assert_eq!(after.iter().filter(|(path, _)| path == "/order").count(), orders.len());
    rig.end().await;
}
