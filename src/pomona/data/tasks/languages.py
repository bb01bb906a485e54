"""The names of common languages in the languages of the prompts."""

from __future__ import annotations

from pomona.metrics.text import primary_language

_COLUMNS = ("en", "ar", "zh", "ja")
_NAMES = {
    "ar": ("Arabic", "العربية", "阿拉伯语", "アラビア語"),
    "bn": ("Bengali", "البنغالية", "孟加拉语", "ベンガル語"),
    "cs": ("Czech", "التشيكية", "捷克语", "チェコ語"),
    "de": ("German", "الألمانية", "德语", "ドイツ語"),
    "el": ("Greek", "اليونانية", "希腊语", "ギリシャ語"),
    "en": ("English", "الإنجليزية", "英语", "英語"),
    "es": ("Spanish", "الإسبانية", "西班牙语", "スペイン語"),
    "fa": ("Persian", "الفارسية", "波斯语", "ペルシア語"),
    "fi": ("Finnish", "الفنلندية", "芬兰语", "フィンランド語"),
    "fr": ("French", "الفرنسية", "法语", "フランス語"),
    "ha": ("Hausa", "الهوسا", "豪萨语", "ハウサ語"),
    "he": ("Hebrew", "العبرية", "希伯来语", "ヘブライ語"),
    "hi": ("Hindi", "الهندية", "印地语", "ヒンディー語"),
    "id": ("Indonesian", "الإندونيسية", "印度尼西亚语", "インドネシア語"),
    "it": ("Italian", "الإيطالية", "意大利语", "イタリア語"),
    "ja": ("Japanese", "اليابانية", "日语", "日本語"),
    "ko": ("Korean", "الكورية", "韩语", "韓国語"),
    "nl": ("Dutch", "الهولندية", "荷兰语", "オランダ語"),
    "pl": ("Polish", "البولندية", "波兰语", "ポーランド語"),
    "pt": ("Portuguese", "البرتغالية", "葡萄牙语", "ポルトガル語"),
    "ro": ("Romanian", "الرومانية", "罗马尼亚语", "ルーマニア語"),
    "ru": ("Russian", "الروسية", "俄语", "ロシア語"),
    "sv": ("Swedish", "السويدية", "瑞典语", "スウェーデン語"),
    "sw": ("Swahili", "السواحيلية", "斯瓦希里语", "スワヒリ語"),
    "th": ("Thai", "التايلاندية", "泰语", "タイ語"),
    "tr": ("Turkish", "التركية", "土耳其语", "トルコ語"),
    "uk": ("Ukrainian", "الأوكرانية", "乌克兰语", "ウクライナ語"),
    "ur": ("Urdu", "الأردية", "乌尔都语", "ウルドゥー語"),
    "vi": ("Vietnamese", "الفيتنامية", "越南语", "ベトナム語"),
    "yo": ("Yoruba", "اليوروبا", "约鲁巴语", "ヨルバ語"),
    "zh": ("Chinese", "الصينية", "中文", "中国語"),
    "zh-hans": ("Simplified Chinese", "الصينية المبسطة", "简体中文", "簡体字中国語"),
    "zh-hant": ("Traditional Chinese", "الصينية التقليدية", "繁体中文", "繁体字中国語"),
}


def language_name(language: str, prompt_language: str) -> str:
    """The name of `language` in a prompt: of the whole tag, else of its primary part, else the tag itself.

    Args:
        language: language tag.
        prompt_language: en, ar, zh or ja.

    Raises:
        ValueError: another prompt language.
    """
    names = _NAMES.get(language.lower()) or _NAMES.get(primary_language(language))
    column = _COLUMNS.index(prompt_language)
    return names[column] if names else language
