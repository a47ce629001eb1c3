// SPDX-License-Identifier: Apache-2.0

package app

// Version of the product. CHANGELOG.md says what is in it.
const Version = "0.1.0"
