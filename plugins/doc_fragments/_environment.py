# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """How an environment is to be: the options of modules that create one, by MWAA's API or by a template."""

    DOCUMENTATION = r"""
options:
  bundle:
    description:
      - A bundle that M(mwaa.migration.airflow_export) filled, V(s3://bucket/prefix) or a folder.
      - Its portable options are set, and O(airflow_configuration_options) over them.
      - O(plugins_s3_path), O(requirements_s3_path) and O(startup_script_s3_path) default to where
        M(mwaa.migration.mwaa_dags_sync) put them. A startup script needs Airflow 2.2.2.
      - C(core.dags_are_paused_at_creation) is C(True), whatever the options say, so that nothing runs before the
        cutover.
    type: str
  bundles:
    description:
      - Several bundles that enter this environment together, instead of O(bundle).
      - Where two bring different values of an option, and O(airflow_configuration_options) does not say which it is to
        be, nothing is done and each such option is named with both.
    type: list
    elements: str
  kms_key_id:
    description: The ARN of the KMS key that sealed the bundle, where that key belongs to another account.
    type: str
  airflow_version:
    description:
      - The Airflow version, such as V(2.11.2). MWAA's newest when an environment is created without it.
      - A version that AWS has ended is warned about, and it is AWS that refuses it.
      - A change upgrades or downgrades in place. It ends all running tasks and makes the environment unavailable for
        up to two hours.
    type: str
  plugins_s3_path:
    description:
      - The plugins archive in the bucket, such as V(plugins.zip).
      - MWAA cannot take plugins away again. To be rid of them, give an archive that is empty.
    type: str
  plugins_s3_object_version:
    description:
      - The version id of the plugins archive. When it is not given, the object's current version is looked up and
        pinned.
    type: str
  requirements_s3_path:
    description:
      - The requirements file in the bucket, such as V(requirements.txt).
      - MWAA cannot take requirements away again. To be rid of them, give a file that is empty.
    type: str
  requirements_s3_object_version:
    description:
      - The version id of the requirements file. When it is not given, the object's current version is looked up and
        pinned.
    type: str
  startup_script_s3_path:
    description:
      - The startup script in the bucket, such as V(startup.sh). Needs Airflow 2.2.2.
      - MWAA cannot take the script away again. To be rid of it, give a script that does nothing.
    type: str
  startup_script_s3_object_version:
    description:
      - The version id of the startup script. When it is not given, the object's current version is looked up and
        pinned.
    type: str
  kms_key:
    description:
      - The id or the ARN of a single-region KMS key that encrypts the environment. Aliases are not supported by MWAA.
      - Fixed when the environment is created. AWS's own key when it is not given.
    type: str
  endpoint_management:
    description:
      - Who makes the VPC endpoints of the environment. V(SERVICE) is MWAA, V(CUSTOMER) is you.
      - Fixed when the environment is created.
      - With V(CUSTOMER), the environment is C(PENDING) until there are endpoints to its services, which it names then.
    type: str
    choices: [SERVICE, CUSTOMER]
  webserver_access_mode:
    description:
      - From where the web server can be reached.
      - V(PUBLIC_AND_PRIVATE) needs Airflow 3.2 and botocore 1.43.30 or newer.
    type: str
    choices: [PRIVATE_ONLY, PUBLIC_ONLY, PUBLIC_AND_PRIVATE]
  environment_class:
    description:
      - The class, such as V(mw1.small). MWAA knows C(mw1.micro), C(mw1.small), C(mw1.medium), C(mw1.large),
        C(mw1.xlarge) and C(mw1.2xlarge).
    type: str
  min_workers:
    description: The least number of workers, 1 or more.
    type: int
  max_workers:
    description: The greatest number of workers, 1 or more. The quota is 25 unless AWS raised it.
    type: int
  schedulers:
    description: The number of schedulers, 1 for V(mw1.micro), 2 to 5 for other classes.
    type: int
  min_webservers:
    description: The least number of web servers, 1 for V(mw1.micro), 2 to 5 for other classes.
    type: int
  max_webservers:
    description: The greatest number of web servers, 1 for V(mw1.micro), 2 to 5 for other classes.
    type: int
  secrets_backend:
    description:
      - Let the environment look in AWS Secrets Manager before its database. Sets C(secrets.backend) and
        C(secrets.backend_kwargs) over O(airflow_configuration_options), or over the current options when that is not
        given. Arguments of the backend that are set already stay.
      - The connection C(aws_default), which every task looks up, is never looked for there, as MWAA itself has it.
      - The execution role needs a policy for it, see the role mwaa.migration.environment.
    type: dict
    suboptions:
      prefix:
        description: What names of secrets begin with. V(airflow) makes C(airflow/connections/<id>) and
          C(airflow/variables/<key>).
        type: str
        default: airflow
      connections_lookup_pattern:
        description: A regular expression of the connections that are looked for. Needs Airflow 2.6.3.
        type: str
      variables_lookup_pattern:
        description: A regular expression of the variables that are looked for. Needs Airflow 2.6.3.
        type: str
  logging_configuration:
    description:
      - What is written to CloudWatch Logs. Logs that are not given stay as they are.
    type: dict
    suboptions:
      dag_processing_logs:
        description: The logs of the DAG processor.
        type: dict
        suboptions: &log
          enabled:
            description: Whether the log is written.
            type: bool
            required: true
          log_level:
            description: The least level that is written.
            type: str
            choices: [CRITICAL, ERROR, WARNING, INFO, DEBUG]
            required: true
      scheduler_logs:
        description: The logs of the scheduler.
        type: dict
        suboptions: *log
      task_logs:
        description: The logs of tasks.
        type: dict
        suboptions: *log
      webserver_logs:
        description: The logs of the web server.
        type: dict
        suboptions: *log
      worker_logs:
        description: The logs of the workers.
        type: dict
        suboptions: *log
  weekly_maintenance_window_start:
    description:
      - When the weekly maintenance window begins, as DAY:HH:MM in UTC on the half hour, such as V(TUE:03:30).
    type: str
  worker_replacement_strategy:
    description:
      - How workers are replaced by this update. V(FORCED) ends their tasks, V(GRACEFUL) lets them finish for up to 12
        hours.
      - It is sent with an update and is no property of the environment. MWAA's default is V(FORCED).
    type: str
    choices: [FORCED, GRACEFUL]
  tags:
    description:
      - The tags, at most 50. Keys have at most 128, values at most 256 characters. When it is not given, tags stay as
        they are.
    type: dict
"""

    INTERIM = r"""
options:
  interim:
    description:
      - Whether the environment is so for a time only, until history is in it (M(mwaa.migration.mwaa_history_interim)).
      - Of the bundles nothing is taken then but how C(.airflowignore) is read. Plugins, requirements, startup script
        and Airflow's options that are given here wait until the environment is what it is to be in the end.
    type: bool
    default: false
"""
