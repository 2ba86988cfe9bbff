"""The Terraform module, read and held against AWS' own model of its API.

Terraform itself is not run. Its arguments are mapped to the API's, by the names that its
provider's documentation gives, and the request they come to is checked by botocore as boto3
would check it. So a misspelt argument, a value that is not allowed, or a wrong type shows.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import hcl2
import pytest
from botocore.validate import ParamValidator

from langgraph_valkey import Settings

MODULE = Path(__file__).resolve().parents[1] / "examples" / "terraform"
CLUSTERS = ("checkpoints", "coordination", "cache")

GROUP = {
    "replication_group_id": "ReplicationGroupId",
    "description": "ReplicationGroupDescription",
    "engine": "Engine",
    "engine_version": "EngineVersion",
    "node_type": "CacheNodeType",
    "port": "Port",
    "parameter_group_name": "CacheParameterGroupName",
    "cluster_mode": "ClusterMode",
    "num_node_groups": "NumNodeGroups",
    "replicas_per_node_group": "ReplicasPerNodeGroup",
    "durability": "Durability",
    "automatic_failover_enabled": "AutomaticFailoverEnabled",
    "multi_az_enabled": "MultiAZEnabled",
    "transit_encryption_enabled": "TransitEncryptionEnabled",
    "transit_encryption_mode": "TransitEncryptionMode",
    "at_rest_encryption_enabled": "AtRestEncryptionEnabled",
    "subnet_group_name": "CacheSubnetGroupName",
    "security_group_ids": "SecurityGroupIds",
    "user_group_ids": "UserGroupIds",
    "auto_minor_version_upgrade": "AutoMinorVersionUpgrade",
}
ALARM = {
    "alarm_name": "AlarmName",
    "alarm_description": "AlarmDescription",
    "namespace": "Namespace",
    "metric_name": "MetricName",
    "statistic": "Statistic",
    "unit": "Unit",
    "comparison_operator": "ComparisonOperator",
    "threshold": "Threshold",
    "period": "Period",
    "evaluation_periods": "EvaluationPeriods",
    "treat_missing_data": "TreatMissingData",
    "alarm_actions": "AlarmActions",
    "ok_actions": "OKActions",
    "dimensions": "Dimensions",
}
OF_TERRAFORM = {"for_each", "apply_immediately", "depends_on"}
"""Arguments that steer Terraform, and reach no API."""

GIVEN = {"subnet_ids": ["subnet-1", "subnet-2"], "security_group_ids": ["sg-1"]}
"""Variables without a default."""


def plain(value: Any) -> Any:
    """A parsed value without the parser's marks."""
    if isinstance(value, str):
        return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items() if not str(k).startswith("__")}
    return value


@cache
def parsed() -> dict[str, list[Any]]:
    """All blocks of the module, by their kind."""
    blocks: dict[str, list[Any]] = {}
    for path in sorted(MODULE.glob("*.tf")):
        with path.open(encoding="utf-8") as opened:
            for kind, found in hcl2.load(opened).items():
                if isinstance(found, list):
                    blocks.setdefault(kind, []).extend(plain(found))
    return blocks


def resource(kind: str, name: str) -> dict[str, Any]:
    for block in parsed()["resource"]:
        if name in block.get(kind, {}):
            found: dict[str, Any] = block[kind][name]
            return found
    raise AssertionError(f"there is no {kind}.{name}")


def variables() -> dict[str, Any]:
    found = dict(GIVEN)
    for block in parsed()["variable"]:
        for name, said in block.items():
            if "default" in said:
                found[name] = said["default"]
    return found


def clusters() -> dict[str, dict[str, Any]]:
    [found] = [block["clusters"] for block in parsed()["locals"] if "clusters" in block]
    return {name: {k: resolved(v) for k, v in said.items()} for name, said in found.items()}


def resolved(value: Any, key: str = "", each: dict[str, Any] | None = None) -> Any:
    """A value with what it refers to put in."""
    if not isinstance(value, str):
        return value
    whole = re.fullmatch(r"\$\{([^{}]+)\}", value)
    if whole is not None:
        return referred(whole[1], key, each or {})
    return re.sub(r"\$\{([^{}]+)\}", lambda match: str(referred(match[1], key, each or {})), value)


def referred(path: str, key: str, each: dict[str, Any]) -> Any:
    if path == "each.key":
        return key
    if path.startswith("each.value."):
        return each[path.removeprefix("each.value.")]
    if path.startswith("var."):
        return variables()[path.removeprefix("var.")]
    return f"name-of-{key}"  # Of another resource.


def checked(service: str, operation: str, request: dict[str, Any]) -> None:
    """Have botocore check a request, and its values against what the API lists."""
    model = botocore.session.get_session().get_service_model(service)
    shape = model.operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()
    for name, value in request.items():
        allowed = getattr(shape.members[name], "enum", None)
        assert not allowed or value in allowed, f"{name}={value!r} is none of {allowed}"


def request_of(
    arguments: dict[str, Any], names: dict[str, str], key: str, each: dict[str, Any]
) -> dict[str, Any]:
    given = set(arguments) - OF_TERRAFORM
    assert given <= set(names), given - set(names)
    found = {names[name]: resolved(arguments[name], key, each) for name in sorted(given)}
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize("name", CLUSTERS)
def test_each_cluster_is_one_that_the_api_takes(name: str) -> None:
    cluster = clusters()[name]
    group = resource("aws_elasticache_replication_group", "this")
    request = request_of(group, GROUP, name, cluster)
    checked("elasticache", "CreateReplicationGroup", request)
    assert request["ClusterMode"] == "enabled"
    assert request["MultiAZEnabled"] is request["AutomaticFailoverEnabled"] is True
    assert request["TransitEncryptionEnabled"] is True
    assert request["ReplicasPerNodeGroup"] >= 1
    assert float(request["EngineVersion"]) >= 9.0
    assert len(request["ReplicationGroupId"]) <= 40


def test_each_kind_of_state_has_the_durability_and_the_eviction_that_it_needs() -> None:
    assert {name: (said["durability"], said["eviction"]) for name, said in clusters().items()} == {
        "checkpoints": ("async", "noeviction"),
        "coordination": ("sync", "noeviction"),
        "cache": ("disabled", "allkeys-lru"),
    }


@pytest.mark.parametrize("name", CLUSTERS)
def test_parameter_groups_set_the_eviction_policy(name: str) -> None:
    group = resource("aws_elasticache_parameter_group", "this")
    parameters = {
        each["name"]: resolved(each["value"], name, clusters()[name]) for each in group["parameter"]
    }
    assert parameters == {
        "cluster-enabled": "yes",
        "maxmemory-policy": clusters()[name]["eviction"],
    }
    request = {
        "CacheParameterGroupName": resolved(group["name"], name),
        "CacheParameterGroupFamily": resolved(group["family"]),
        "Description": resolved(group["description"], name, clusters()[name]),
    }
    checked("elasticache", "CreateCacheParameterGroup", request)
    change = {
        "CacheParameterGroupName": request["CacheParameterGroupName"],
        "ParameterNameValues": [
            {"ParameterName": parameter, "ParameterValue": value}
            for parameter, value in parameters.items()
        ],
    }
    checked("elasticache", "ModifyCacheParameterGroup", change)


def test_the_subnet_group_is_one_that_the_api_takes() -> None:
    group = resource("aws_elasticache_subnet_group", "this")
    names = {
        "name": "CacheSubnetGroupName",
        "description": "CacheSubnetGroupDescription",
        "subnet_ids": "SubnetIds",
    }
    checked("elasticache", "CreateCacheSubnetGroup", request_of(group, names, "", {}))


@pytest.mark.parametrize(
    ("name", "metric", "statistic"),
    [
        ("lag", "DurabilityLag", "Maximum"),
        ("refused", "DurabilityBufferExceededErrorCount", "Sum"),
    ],
)
def test_alarms_watch_the_log(name: str, metric: str, statistic: str) -> None:
    alarm = resource("aws_cloudwatch_metric_alarm", name)
    request = request_of(alarm, ALARM, "agents-checkpoints-0001-001", {})
    dimensions = request["Dimensions"]
    assert set(dimensions) == {"CacheClusterId", "CacheNodeId"}
    request["Dimensions"] = [
        {"Name": key, "Value": resolved(value, "agents-checkpoints-0001-001")}
        for key, value in dimensions.items()
    ]
    checked("cloudwatch", "PutMetricAlarm", request)
    assert (request["MetricName"], request["Statistic"]) == (metric, statistic)
    assert request["Namespace"] == "AWS/ElastiCache"
    assert request["Threshold"] < 10_000


def test_the_provider_is_one_that_knows_durability() -> None:
    [terraform] = parsed()["terraform"]
    [provider] = terraform["required_providers"]
    assert provider["aws"]["version"] == ">= 6.51"


def test_the_urls_that_it_gives_are_urls_that_settings_take() -> None:
    text = (MODULE / "outputs.tf").read_text(encoding="utf-8")
    [url] = re.findall(r'"(valkeys://[^"]+)"', text)
    for cluster in clusters().values():
        given = url.replace("%s:%d", "host:6379").replace("%s", cluster["durability"])
        settings = Settings.from_url(given)
        assert settings.tls
        assert settings.durability == cluster["durability"]
