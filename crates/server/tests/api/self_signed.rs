//! Webhooks that show what `openssl req -x509` makes: a certificate that is an authority's, signed by itself, which is
//! also their `caBundle`.

use pki::{ClientAuth, Identity, SecretText, Trust};
use serde_json::{Value, json};

use crate::conversion::{DEFINITIONS, V1, V2, answer, definition, done, door, until};
use crate::hooks::{Hook, admitted};
use crate::house::House;

/// A certificate for these names until a year.
pub fn self_signed(names: &[&str], until: i32) -> Identity {
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    Identity::from_pem(certificate.pem(), SecretText::new(key.serialize_pem())).unwrap()
}

/// A webhook that shows a certificate, which is its bundle.
async fn hook(identity: &Identity, answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Hook {
    let pem = identity.certificate_pem();
    let tls = identity.server_config(&Trust::from_pem(pem).unwrap(), ClientAuth::Optional, &[]).unwrap();
    Hook::showing(answer, None, tls, pem).await
}

/// The certificates that are refused, and why.
fn wrong() -> [(Identity, &'static str); 2] {
    [
        (self_signed(&["127.0.0.2", "hook.default.svc"], 3000), "not valid for name"),
        (self_signed(&["127.0.0.1"], 2020), "Expired"),
    ]
}

#[tokio::test]
async fn an_admission_webhook_is_believed_if_name_and_time_fit() {
    let admits = |review: &Value| {
        let mut response = admitted();
        response["uid"] = review["request"]["uid"].clone();
        json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})
    };
    let house = House::new().await;
    let good = hook(&self_signed(&["127.0.0.1"], 3000), admits).await;
    let webhooks = |config: Value| {
        json!([{"name": "v.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": config, "rules": [{"apiGroups": [""], "apiVersions": ["*"],
                "operations": ["CREATE"], "resources": ["configmaps"]}]}])
    };
    let place = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    done(&house, "POST", place, Some(json!({"kind": "ValidatingWebhookConfiguration",
        "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "v"}, "webhooks": webhooks(good.config())})))
    .await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}});
    done(&house, "POST", maps, Some(map)).await;
    assert_eq!(good.count(), 1);
    for (identity, why) in wrong() {
        let hook = hook(&identity, admits).await;
        let patch = json!({"webhooks": webhooks(hook.config())});
        done(&house, "PATCH", &format!("{place}/v"), Some(patch)).await;
        let other = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "b"}});
        let (code, refused) = house.ask("POST", maps, Some(other)).await;
        assert!(code == 500 && refused["message"].as_str().unwrap().contains(why), "{why}: {refused}");
        assert_eq!(hook.count(), 0);
    }
}

#[tokio::test]
async fn a_conversion_webhook_is_believed_if_name_and_time_fit() {
    let house = House::new().await;
    let good = hook(&self_signed(&["127.0.0.1"], 3000), answer).await;
    done(&house, "POST", DEFINITIONS, Some(definition(&good.config(), "v1"))).await;
    until(&house, V1, |code, _| code == 200).await;
    done(&house, "POST", V1, Some(door("v1", "a", json!({"address": "a:1"})))).await;
    assert_eq!(done(&house, "GET", &format!("{V2}/a"), None).await["spec"]["port"], 1);
    for (identity, why) in wrong() {
        let hook = hook(&identity, answer).await;
        let path = format!("{DEFINITIONS}/doors.example.com");
        let patch = json!({"spec": {"conversion": {"webhook": {"clientConfig": hook.config()}}}});
        done(&house, "PATCH", &path, Some(patch)).await;
        let (code, refused) = house.ask("GET", &format!("{V2}/a"), None).await;
        assert!(code == 500 && refused["message"].as_str().unwrap().contains(why), "{why}: {refused}");
        assert_eq!(hook.count(), 0);
    }
}
