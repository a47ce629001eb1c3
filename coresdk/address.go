// SPDX-License-Identifier: Apache-2.0

package coresdk

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
)

// address is where the sidecar listens, and how it may be reached.
type address struct {
	network  string // unix or tcp
	endpoint string // path or host:port
	host     string // of tcp
}

// The address is not repeated in the error: what people paste here by mistake
// is a URL with a password in it.
var errAddr = errors.New("coresdk: CORESDK_SIDECAR_ADDR (Config.Addr) must be host:port or unix:///path")

func parseAddress(s string) (address, error) {
	if path, ok := strings.CutPrefix(s, "unix://"); ok {
		if len(path) < 2 || path[0] != '/' {
			return address{}, errAddr
		}
		return address{network: "unix", endpoint: path}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || strings.ContainsAny(host, "/@ ") {
		return address{}, errAddr
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return address{}, errAddr
	}
	return address{network: "tcp", endpoint: s, host: host}, nil
}

// loopback reports whether the address says it stays on this machine. What a
// name resolves to is checked again when it is dialled.
func (a address) loopback() bool {
	if a.host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(a.host)
	return err == nil && ip.Unmap().IsLoopback()
}

// authority is the name the sidecar's certificate must carry, and the
// :authority of calls.
func (a address) authority() string {
	if a.network == "unix" {
		return "localhost"
	}
	return a.endpoint
}

// dialer returns what opens a connection to the address, whatever target it
// is given. With onlyLoopback it refuses every other destination, so that a
// resolver that lies about localhost gets no plaintext token.
func (a address) dialer(onlyLoopback bool) func(context.Context, string) (net.Conn, error) {
	var d net.Dialer
	if onlyLoopback && a.network == "tcp" {
		d.Control = func(_, destination string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(destination)
			if err != nil || !ap.Addr().Unmap().IsLoopback() {
				return errors.New("plaintext to an address that is not loopback")
			}
			return nil
		}
	}
	return func(ctx context.Context, _ string) (net.Conn, error) {
		return d.DialContext(ctx, a.network, a.endpoint)
	}
}
