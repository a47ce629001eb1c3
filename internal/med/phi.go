// SPDX-License-Identifier: Apache-2.0

package med

import (
	"fmt"
	"log/slog"
)

// PHI is protected health information in clear. It prints as [phi] under every
// verb, in JSON and in slog, so that a forgotten log line or error tells
// nothing. Reveal is the one way out, and easy to search for.
type PHI string

const phiMark = "[phi]"

// Reveal returns the value in clear, for an answer the caller may see or a
// field about to be sealed.
func (p PHI) Reveal() string { return string(p) }

func (p PHI) String() string               { return phiMark }
func (p PHI) GoString() string             { return phiMark }
func (p PHI) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(phiMark)) }
func (p PHI) MarshalText() ([]byte, error) { return []byte(phiMark), nil }
func (p PHI) MarshalJSON() ([]byte, error) { return []byte(`"` + phiMark + `"`), nil }
func (p PHI) LogValue() slog.Value         { return slog.StringValue(phiMark) }

// Credential is what a caller showed: a bearer token. It is kept only to be
// shown to the sidecar again, and never prints.
type Credential string

const credentialMark = "[credential]" //nolint:gosec // what stands in place of one

// Reveal returns the token, for the sidecar only.
func (c Credential) Reveal() string { return string(c) }

func (c Credential) String() string               { return credentialMark }
func (c Credential) GoString() string             { return credentialMark }
func (c Credential) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(credentialMark)) }
func (c Credential) MarshalText() ([]byte, error) { return []byte(credentialMark), nil }
func (c Credential) MarshalJSON() ([]byte, error) { return []byte(`"` + credentialMark + `"`), nil }
func (c Credential) LogValue() slog.Value         { return slog.StringValue(credentialMark) }
