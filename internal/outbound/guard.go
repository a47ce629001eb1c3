// SPDX-License-Identifier: Apache-2.0

package outbound

import (
	"context"
	"net/netip"
	"syscall"
)

// guard refuses a connection by the address that is really dialled, after the
// name was resolved. Checking the name, or resolving it once before, would
// leave a gap for a name that changes its mind (DNS rebinding).
func guard(may func(netip.Addr) bool) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, network, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil || network != "tcp4" && network != "tcp6" {
			return ErrAddress
		}
		if !may(ap.Addr().Unmap().WithZone("")) {
			return ErrAddress
		}
		return nil
	}
}

func allowed(cfg Config, ip netip.Addr) bool {
	if cfg.Dev && ip.IsLoopback() {
		return true
	}
	return public(ip) || within(cfg.Allow, ip)
}

// public reports whether the address belongs to the open internet. For IPv6
// only the global unicast block does; what tunnels IPv4 inside it does not,
// because the inner address could be anybody's.
func public(ip netip.Addr) bool {
	if ip.Is4() {
		return !within(special4, ip)
	}
	return global6.Contains(ip) && !within(special6, ip)
}

func within(ranges []netip.Prefix, ip netip.Addr) bool {
	for _, r := range ranges {
		if r.Contains(ip) {
			return true
		}
	}
	return false
}

// The IANA special-purpose registries (RFC 6890 and its successors).
var (
	special4 = prefixes(
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
		"192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24",
		"192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
		"224.0.0.0/4", "240.0.0.0/4",
	)
	global6  = netip.MustParsePrefix("2000::/3")
	special6 = prefixes("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		out[i] = netip.MustParsePrefix(t)
	}
	return out
}
