// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/medirecord/medirecord/internal/med"
)

// Keeper holds the keys that never leave it: the root key, which wraps
// practice keys, and the epoch keys, which wrap patients' data keys. All its
// calls are bound by ctx and by a deadline of the keeper's own, and are safe
// for concurrent use.
//
// They report med.KeysUnavailable when the keeper or the key cannot be
// reached, ErrDestroyed for a key that was destroyed, and ErrOpen when wrapped
// bytes are not what that key wrapped with that aad.
type Keeper interface {
	// CreateKey makes sure that the key exists. It never revives a destroyed one.
	CreateKey(ctx context.Context, name string) error
	// DestroyKey ends the key, every version, for good. Doing it again is no error.
	DestroyKey(ctx context.Context, name string) error
	// Wrap seals plain under the newest version of the key.
	Wrap(ctx context.Context, name string, plain, aad []byte) ([]byte, error)
	// Unwrap opens what Wrap sealed under any version of the key with that aad.
	Unwrap(ctx context.Context, name string, wrapped, aad []byte) ([]byte, error)
	// Rewrap seals again under the newest version; the plaintext stays inside.
	Rewrap(ctx context.Context, name string, wrapped, aad []byte) ([]byte, error)
}

// RootKey is the keeper's key that wraps practice keys.
const RootKey = "root"

// EpochKey names the keeper's key of an epoch.
func EpochKey(epoch int64) string { return "epoch-" + strconv.FormatInt(epoch, 10) }

// OpenKeeper opens the keeper that a URL names: file:///absolute/directory.
// It reports an error that never repeats the URL, which may hold credentials.
func OpenKeeper(rawURL string) (Keeper, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("key keeper: not a URL; supported: file:///directory")
	}
	switch u.Scheme {
	case "file":
		return openFileURL(u)
	case "":
		return nil, errors.New("key keeper: URL without a scheme; supported: file:///directory")
	default:
		return nil, fmt.Errorf("key keeper: unknown scheme %q; supported: file:///directory", u.Scheme)
	}
}

func openFileURL(u *url.URL) (Keeper, error) {
	plain := u.Host == "" && u.User == nil && u.RawQuery == "" && u.Fragment == "" && u.Opaque == ""
	if !plain || u.Path == "" || u.Path == "/" {
		return nil, errors.New("key keeper: want file:///directory: an absolute path, no host, query or fragment")
	}
	return OpenFileKeeper(u.Path)
}

// IsDev reports whether a keeper is for development only; serve refuses such a
// one outside dev mode.
func IsDev(k Keeper) bool {
	d, ok := k.(interface{ Dev() bool })
	return ok && d.Dev()
}

func unavailable(format string, args ...any) error {
	return med.KeysUnavailable.Because(fmt.Errorf(format, args...))
}

// checkKeyName reports ErrMisuse for a name that is not 1 to 64 of [a-z0-9-].
// Such a name cannot leave a directory or a URL path it is put into.
func checkKeyName(name string) error {
	ok := len(name) >= 1 && len(name) <= 64
	for i := range len(name) {
		c := name[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !ok {
		return fmt.Errorf("key name is not 1 to 64 of [a-z0-9-]: %w", ErrMisuse)
	}
	return nil
}
