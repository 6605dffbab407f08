//! The ranges of addresses of Services and pods.

use ipnet::IpNet;

use super::changed::changed;
use super::{dns, ranges};
use crate::field::{Error, Errors, Path};
use crate::v1alpha1::TenantControlPlaneSpec;

/// The ranges of a profile for one purpose, as they are written.
struct Ranges<'a> {
    path: Path,
    /// They stand in a list, and not in the field for one.
    listed: bool,
    texts: Vec<&'a str>,
    /// Those that are ranges, by where they stand.
    parsed: Vec<(usize, IpNet)>,
}

impl<'a> Ranges<'a> {
    fn of_services(spec: &'a TenantControlPlaneSpec) -> Self {
        let profile = &spec.network_profile;
        let fields = ["serviceCidr", "serviceCidrs"];
        Self::new(fields, &profile.service_cidrs, profile.service_ranges())
    }

    fn of_pods(spec: &'a TenantControlPlaneSpec) -> Self {
        let profile = &spec.network_profile;
        let fields = ["podCidr", "podCidrs"];
        Self::new(fields, &profile.pod_cidrs, profile.pod_ranges())
    }

    fn new([one, many]: [&str; 2], list: &[String], texts: Vec<&'a str>) -> Self {
        let listed = !list.is_empty();
        let ranges = texts.iter().enumerate();
        Ranges {
            path: profile().child(if listed { many } else { one }),
            listed,
            parsed: ranges
                .filter_map(|(position, range)| Some((position, range.parse().ok()?)))
                .collect(),
            texts,
        }
    }

    fn at(&self, position: usize) -> Path {
        match self.listed {
            true => self.path.index(position),
            false => self.path.clone(),
        }
    }

    /// What is wrong with those that were not there before.
    fn each(
        &self,
        before: &[&str],
        complaint: impl Fn(&str, &IpNet) -> Option<String>,
        errors: &mut Errors,
    ) {
        for (position, range) in &self.parsed {
            let text = self.texts[*position];
            if !before.contains(&text)
                && let Some(detail) = complaint(text, range)
            {
                errors.push(Error::invalid(&self.at(*position), text, detail));
            }
        }
    }

    fn families(&self, errors: &mut Errors) {
        if let [(_, one), (_, other)] = self.parsed.as_slice()
            && one.addr().is_ipv4() == other.addr().is_ipv4()
        {
            let detail = "two ranges must be of different IP families: one IPv4, one IPv6";
            errors.push(Error::invalid_whole(&self.path, detail));
        }
    }

    /// Those of pods are apart from those of Services.
    fn apart_from(&self, services: &Ranges<'_>, errors: &mut Errors) {
        for (position, pod) in &self.parsed {
            let overlaps = |service: &IpNet| pod.contains(service) || service.contains(pod);
            let services = &services.parsed;
            if let Some((_, service)) = services.iter().find(|(_, service)| overlaps(service)) {
                let detail = format!(
                    "overlaps with the range of Service addresses {service}; choose ranges apart from each other"
                );
                errors.push(Error::invalid(&self.at(*position), pod.to_string(), detail));
            }
        }
    }

    fn first_stays(&self, before: &Ranges<'_>, errors: &mut Errors) {
        if before.texts.first() != self.texts.first() {
            let first = before.texts.first().copied().unwrap_or_default();
            let detail = format!(
                "the first range cannot be changed once the tenant runs: addresses of {first} are in use"
            );
            errors.push(Error::forbidden(&self.path, detail));
        }
    }
}

fn profile() -> Path {
    Path::new("spec.networkProfile")
}

/// Whether a tenant has nodes, pods and Services with addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InUse {
    Yes,
    No,
}

pub(super) fn check(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    in_use: InUse,
    errors: &mut Errors,
) {
    let (services, pods) = (Ranges::of_services(new), Ranges::of_pods(new));
    let before = old.map(|old| (Ranges::of_services(old), Ranges::of_pods(old)));
    let texts = |spec: &TenantControlPlaneSpec| {
        let owned = |ranges: Vec<&str>| ranges.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let profile = &spec.network_profile;
        (owned(profile.service_ranges()), owned(profile.pod_ranges()))
    };
    if changed(new, old, texts) {
        let before = before.as_ref();
        let known = before.map_or(&[][..], |(services, _)| &services.texts);
        services.each(
            known,
            |text, range| ranges::of_services(text, range, new),
            errors,
        );
        let known = before.map_or(&[][..], |(_, pods)| &pods.texts);
        pods.each(
            known,
            |text, range| ranges::of_pods(text, range, new),
            errors,
        );
        services.families(errors);
        pods.families(errors);
        pods.apart_from(&services, errors);
        if let Some((old_services, old_pods)) = before.filter(|_| in_use == InUse::Yes) {
            services.first_stays(old_services, errors);
            pods.first_stays(old_pods, errors);
        }
    }
    let addresses = |spec: &TenantControlPlaneSpec| {
        (spec.network_profile.dns_service_ips.clone(), texts(spec).0)
    };
    if changed(new, old, addresses) {
        let same = old.filter(|old| texts(old).0 == texts(new).0);
        let kept = same.map_or(&[][..], |old| &old.network_profile.dns_service_ips);
        dns::check(
            &profile(),
            &new.network_profile,
            kept,
            &services.parsed,
            errors,
        );
        if new.network_profile.dns_service_ips.is_empty() {
            for (position, range) in &services.parsed {
                let path = services.at(*position);
                let detail = dns::no_room(range);
                errors.extend(detail.map(|it| Error::invalid(&path, range.to_string(), it)));
            }
        }
    }
}
