# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From bundles or folders to an environment's bucket. PRIVATE to the collection.

tree: files; source: where they come from; merge: several sources as one; layout: what is hidden until the cutover;
requirements, archive: requirements.txt and plugins.zip; bucket, index: what stands in S3; publish: all of it in order.
"""
