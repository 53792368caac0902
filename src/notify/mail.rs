//! Sends mail.

use std::sync::Arc;
use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message as Mail, Tokio1Executor};

use super::sender::Failure;
use crate::config::notify::Email;

/// Sends a mail to everybody at once.
///
/// Cancel safety: dropped midway, the server may have taken it or not.
pub async fn send(
    email: &Email,
    ca: Option<&Arc<str>>,
    (subject, body): (String, String),
    within: Duration,
) -> Result<(), Failure> {
    let place = format!("{}:{}", email.host, email.port);
    // What is written in the configuration cannot be sent: trying again changes nothing.
    let never = |error: String| Failure::for_good(format!("{place}: {error}"));
    let mut mail = Mail::builder().subject(subject).header(ContentType::TEXT_PLAIN);
    mail = mail.from(email.from.parse().map_err(|error| never(format!("`from`: {error}")))?);
    for to in &email.to {
        mail = mail.to(to.parse().map_err(|error| never(format!("`to`: {error}")))?);
    }
    let mail = mail.body(body).map_err(|error| never(error.to_string()))?;
    let tls = match email.tls {
        None => Tls::None,
        Some(from_the_first_byte) => {
            let mut parameters = TlsParameters::builder(email.host.clone());
            if let Some(pem) = ca {
                parameters = parameters.certificate_store(CertificateStore::None);
                let certificate = Certificate::from_pem(pem.as_bytes());
                let certificate = certificate.map_err(|error| never(error.to_string()))?;
                parameters = parameters.add_root_certificate(certificate);
            }
            let parameters = parameters.build().map_err(|error| never(error.to_string()))?;
            if from_the_first_byte { Tls::Wrapper(parameters) } else { Tls::Required(parameters) }
        }
    };
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&email.host)
        .port(email.port)
        .tls(tls)
        .timeout(Some(within));
    if let Some((user, password)) = &email.login {
        transport = transport.credentials(Credentials::new(user.clone(), password.clone()));
    }
    let sent = tokio::time::timeout(within, transport.build().send(mail)).await;
    match sent {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.is_permanent() => Err(never(error.to_string())),
        Ok(Err(error)) => Err(Failure::for_now(format!("{place}: {error}"))),
        Err(_) => Err(Failure::for_now(format!("{place} did not answer within {within:?}"))),
    }
}
