// SPDX-License-Identifier: Apache-2.0

// Package watch reads the sealed trail and raises alarms. Minted holds what
// the sidecar minted against what was entered: an entry that is not of the
// context it names, and a context that no entry carries, are flagged. It opens
// no patient data, changes no entry, and holds up neither sealing nor serving.
package watch
