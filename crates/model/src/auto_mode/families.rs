//! Which machine types Auto Mode takes.
//! <https://docs.aws.amazon.com/eks/latest/userguide/automode-learn-instances.html>

/// The instance families, sorted. As of August 2026.
pub const FAMILIES: [&str; 129] = [
    "c4", "c5", "c5a", "c5ad", "c5d", "c5n", "c6a", "c6g", "c6gd", "c6gn", "c6i", "c6id", "c6in",
    "c7a", "c7g", "c7gd", "c7gn", "c7i", "c7i-flex", "c8a", "c8g", "c8gb", "c8gd", "c8gn", "c8i",
    "c8i-flex", "c8id", "d3", "d3en", "g4ad", "g4dn", "g5", "g5g", "g6", "g6e", "g7e", "gr6",
    "hpc8a", "i3", "i3en", "i4g", "i4i", "i7i", "i7ie", "i8g", "i8ge", "im4gn", "inf1", "inf2",
    "is4gen", "m4", "m5", "m5a", "m5ad", "m5d", "m5dn", "m5n", "m5zn", "m6a", "m6g", "m6gd", "m6i",
    "m6id", "m6idn", "m6in", "m7a", "m7g", "m7gd", "m7i", "m7i-flex", "m8a", "m8azn", "m8g",
    "m8gb", "m8gd", "m8gn", "m8i", "m8i-flex", "m8id", "p3dn", "p4d", "p4de", "p5", "p5e", "p5en",
    "p6-b200", "p6-b300", "r4", "r5", "r5a", "r5ad", "r5b", "r5d", "r5dn", "r5n", "r6a", "r6g",
    "r6gd", "r6i", "r6id", "r6idn", "r6in", "r7a", "r7g", "r7gd", "r7i", "r7iz", "r8a", "r8g",
    "r8gb", "r8gd", "r8gn", "r8i", "r8i-flex", "t2", "t3", "t3a", "t4g", "trn1", "trn1n", "trn2",
    "x2gd", "x2idn", "x2iedn", "x2iezn", "x8aedz", "x8g", "x8i", "z1d",
];

/// Sizes too small for what Auto Mode runs on a node.
const SIZES_TOO_SMALL: [&str; 3] = ["micro", "nano", "small"];

/// Whether Auto Mode takes machines of a type with so many vCPUs.
pub fn is_supported(instance_type: &str, vcpus: u32) -> bool {
    let Some((family, size)) = instance_type.split_once('.') else { return false };
    vcpus > 1 && !SIZES_TOO_SMALL.contains(&size) && FAMILIES.binary_search(&family).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_sorted_and_named_once() {
        assert!(FAMILIES.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn small_and_old_machines_are_left_out() {
        for (instance_type, vcpus, expected) in [
            ("c5a.large", 2, true),
            ("c6g.medium", 1, false),
            ("t3.small", 2, false),
            ("t3.micro", 2, false),
            ("t3.medium", 2, true),
            ("a1.large", 2, false),
            ("m3.large", 2, false),
            ("u-6tb1.112xlarge", 448, false),
            ("p5.48xlarge", 192, true),
            ("m8azn.xlarge", 4, true),
            ("odd", 8, false),
        ] {
            assert_eq!(is_supported(instance_type, vcpus), expected, "{instance_type}");
        }
    }
}
