"""KuaiRand's standard log (Gao et al., CIKM 2022): short-video impressions with eight labels, and two feature tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tidewheel.contracts.recipe import KuaiRandSource
from tidewheel.contracts.schema import label_column
from tidewheel.logs.adapter import (
    GIVEN_COLUMNS,
    LAST_MILLISECOND,
    LOGGING_COLUMNS,
    RAW,
    USER_TABLE,
    Adapter,
    LogFile,
    Request,
    Roles,
    because,
    hour_of_user,
)
from tidewheel.logs.files import scan

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

LABELS = {
    "click": "is_click",
    "long_view": "long_view",
    "like": "is_like",
    "follow": "is_follow",
    "comment": "is_comment",
    "forward": "is_forward",
    "profile_enter": "is_profile_enter",
    "hate": "is_hate",
}
USERS = "user_features.parquet"
VIDEOS = "video_features_basic.parquet"
# Made here: hour (UTC) of the impression, whole days since the video was uploaded; duration_ms is cleaned.
CONTEXT_COLUMNS = frozenset({"tab", "hour"})
# fmt: off
USER_COLUMNS = frozenset({
    "user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author", "follow_user_num",
    "follow_user_num_range", "fans_user_num", "fans_user_num_range", "friend_user_num", "friend_user_num_range",
    "register_days", "register_days_range",
}) | {f"onehot_feat{number}" for number in range(18)}
# fmt: on
# fmt: off
VIDEO_COLUMNS = frozenset({
    "video_type", "upload_type", "visible_status", "video_duration", "server_width", "server_height", "music_id",
    "music_type", "tag",
})
# fmt: on
MADE_COLUMNS = frozenset({"user_id", "item_id", "author_id", "duration_ms", "item_age_days"})
# fmt: off
STATISTIC_COLUMNS = (
    "counts", "show_cnt", "show_user_num", "play_cnt", "play_user_num", "play_duration", "complete_play_cnt",
    "complete_play_user_num", "valid_play_cnt", "valid_play_user_num", "long_time_play_cnt", "long_time_play_user_num",
    "short_time_play_cnt", "short_time_play_user_num", "play_progress", "comment_stay_duration", "like_cnt",
    "like_user_num", "click_like_cnt", "double_click_cnt", "cancel_like_cnt", "cancel_like_user_num", "comment_cnt",
    "comment_user_num", "direct_comment_cnt", "reply_comment_cnt", "delete_comment_cnt", "delete_comment_user_num",
    "comment_like_cnt", "comment_like_user_num", "follow_cnt", "follow_user_num", "cancel_follow_cnt",
    "cancel_follow_user_num", "share_cnt", "share_user_num", "download_cnt", "download_user_num", "report_cnt",
    "report_user_num", "reduce_similar_cnt", "reduce_similar_user_num", "collect_cnt", "collect_user_num",
    "cancel_collect_cnt", "cancel_collect_user_num", "direct_comment_user_num", "reply_comment_user_num", "share_all_cnt",
    "share_all_user_num", "outsite_share_all_cnt",
)
# fmt: on
FORBIDDEN = (
    LOGGING_COLUMNS
    | because({*LABELS, *LABELS.values(), *map(label_column, LABELS)}, "is an outcome of the impression")
    | because(("play_time_ms",), "is an outcome: it is measured after the impression and fixes long_view")
    | because(("profile_stay_time", "comment_stay_time"), "is an outcome: it is measured after the impression")
    | because(STATISTIC_COLUMNS, "looks into the future: video_features_statistic averages the whole month of the log")
    | because(("time_ms", "date", "hourmin"), "is the moment of the impression; use hour")
    | because(("is_rand",), "says how the request was ranked")
    | because(("video_id",), "is called item_id here")
    | because(("upload_dt",), "is a date; use item_age_days")
)


def roles(source: KuaiRandSource) -> Roles:
    return Roles(CONTEXT_COLUMNS | USER_COLUMNS | VIDEO_COLUMNS | MADE_COLUMNS, LABELS, FORBIDDEN)


def log_files(request: Request) -> Sequence[LogFile]:
    columns = {"user_id", "video_id", "time_ms", "is_rand", "tab", "duration_ms"} | {LABELS[label] for label in request.labels}
    return [LogFile(path, frozenset(columns)) for path in sorted(request.folder.glob("log_*.parquet"))]


def side_tables(request: Request) -> Sequence[LogFile]:
    wanted = frozenset(request.features)
    return (
        LogFile(request.folder / USERS, frozenset({"user_id"} | (wanted & USER_COLUMNS)), unique="user_id", part=USER_TABLE),
        LogFile(
            request.folder / VIDEOS,
            frozenset({"video_id", "author_id", "upload_dt"} | (wanted & VIDEO_COLUMNS)),
            unique="video_id",
        ),
    )


def read(spark: SparkSession, request: Request, files: Sequence[LogFile]) -> DataFrame:
    """Impressions with the videos' features.

    The log has no slates: a request is a user's hour. `date` and `hourmin` (Beijing time, in 0.9% of the rows another
    hour) are left alone, `time_ms` is the time. A duration of 0 or less is null.
    """
    from pyspark.sql import functions as F

    log = scan(spark, files)
    videos = spark.read.parquet((request.folder / VIDEOS).as_posix())
    wanted = frozenset(request.features)
    videos = videos.select(F.col("video_id").alias("of_video"), "author_id", "upload_dt", *sorted(wanted & VIDEO_COLUMNS))
    raw = F.struct(*log.columns).alias(RAW)
    is_time = F.col("time_ms").between(0, LAST_MILLISECOND)
    log = log.withColumn("event_time", F.when(is_time, F.timestamp_millis("time_ms"))).select("*", raw)
    joined = log.join(F.broadcast(videos), log["video_id"] == videos["of_video"], "left")
    age = F.unix_date(F.col("event_time").cast("date")) - F.unix_date(F.col("upload_dt").try_cast("date"))
    named = {
        "request_id": hour_of_user(F.col("user_id"), F.col("event_time")),
        "item_id": F.col("video_id"),
        "position": F.lit(None).cast("int"),
        "is_randomized": F.col("is_rand") == 1,
        "propensity": F.lit(None).cast("double"),
        "inclusion_probability": F.lit(1.0),
        "hour": F.hour("event_time"),
        "item_age_days": F.when(age >= 0, age),
        "duration_ms": F.when(F.col("duration_ms") > 0, F.col("duration_ms")),
    }
    named |= {label_column(label): F.col(LABELS[label]) for label in request.labels}
    features = [feature for feature in request.features if feature not in USER_COLUMNS]
    wanted_names = dict.fromkeys((*GIVEN_COLUMNS, *map(label_column, request.labels), *features))
    return joined.select(*(named.get(name, F.col(name)).alias(name) for name in wanted_names), RAW)


def user_table(spark: SparkSession, request: Request) -> DataFrame:
    users = spark.read.parquet((request.folder / USERS).as_posix())
    return users.select("user_id", *sorted(frozenset(request.features) & USER_COLUMNS))


ADAPTER = Adapter(
    roles=roles,
    log_files=log_files,
    side_tables=side_tables,
    read=read,
    time_column=lambda source: "time_ms",
    key=("user_id", "item_id", "event_time"),  # the request follows from them
    user_features=USER_COLUMNS,
    user_table=user_table,
)
