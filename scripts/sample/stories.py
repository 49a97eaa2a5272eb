"""Small stories and lists in both languages: the part of the pretraining texts that is not questions and answers."""

import random

from scripts.sample import chinese, english
from scripts.sample.task import LANGUAGES, draw_topic, sentence

NAMES = {
    "en": ["Mia", "Tom", "Anna", "Ben", "Lucy", "Sam", "Emma", "Jack", "Nora", "Leo", "Grace", "Max", "Ruth", "Paul", "Alice", "Henry"],
    "zh": ["小明", "小红", "小华", "小丽", "小刚", "小芳", "小军", "小美", "小强", "小玲", "小杰", "小雨", "小亮", "小云"],
}  # fmt: skip
WORDS = {
    "en": {
        "thing": ["apples", "books", "eggs", "pens", "coins", "balloons", "stones", "shells", "stamps", "biscuits", "flowers", "cards"],
        "place": ["garden", "park", "school", "library", "kitchen", "market", "station", "museum", "forest", "river", "farm", "beach"],
        "weather": ["sunny", "rainy", "cloudy", "windy", "cold", "warm", "foggy", "snowy"],
        "feeling": ["happy", "proud", "tired", "glad", "calm", "curious", "surprised", "hungry"],
        "person": ["mother", "father", "teacher", "grandmother", "grandfather", "neighbour", "sister", "brother", "uncle", "aunt"],
        "food": ["soup", "bread", "rice", "noodles", "pancakes", "fish", "salad", "dumplings", "cheese", "porridge"],
        "deed": ["read a story", "draw a picture", "plant a tree", "bake a cake", "sing a song", "count the stars", "feed the hens",
                 "write a letter", "play the piano", "water the flowers", "build a kite", "learn new words"],
    },
    "zh": {
        "thing": ["个苹果", "本书", "个鸡蛋", "支笔", "颗糖", "个气球", "块石头", "个贝壳", "张邮票", "块饼干", "朵花", "张卡片"],
        "place": ["花园", "公园", "学校", "图书馆", "厨房", "市场", "车站", "博物馆", "森林", "河边", "农场", "海边"],
        "weather": ["晴朗", "下雨", "多云", "刮风", "寒冷", "温暖", "有雾", "下雪"],
        "feeling": ["高兴", "自豪", "疲倦", "开心", "平静", "好奇", "惊讶", "满足"],
        "person": ["妈妈", "爸爸", "老师", "奶奶", "爷爷", "邻居", "姐姐", "弟弟", "叔叔", "阿姨"],
        "food": ["汤", "面包", "米饭", "面条", "煎饼", "鱼", "沙拉", "饺子", "豆腐", "粥"],
        "deed": ["读故事", "画画", "种树", "烤蛋糕", "唱歌", "数星星", "喂鸡", "写信", "弹钢琴", "浇花", "做风筝", "学新词"],
    },
}  # fmt: skip

# Slots: name, other, a, b, total, day, tomorrow, month, next, and the keys of WORDS.
STORIES = {
    "en": [
        "{name} has {a} {thing}. {other} gives {name} {b} more. Now {name} has {total} {thing}, because {a} plus {b} is {total}.",
        "There are {total} {thing} on the table. {name} takes {a} of them. {b} are left, because {total} minus {a} is {b}.",
        "On {day} {name} went to the {place}. It was {weather}. The next day, on {tomorrow}, {name} stayed at home to {deed}.",
        '{name} and {other} met at the {place}. "Good morning!" said {name}. "Nice to see you!" said {other}. They were {feeling}.',
        "In {month} it was {weather}. In {next}, the month after {month}, {name} liked to {deed} with {other}.",
        "{name} cooked {food} for {other}. \"Thank you so much!\" said {other}. \"You are welcome,\" said {name}.",
        "The {person} asked {name} to {deed}. {name} was {feeling} and said: \"Of course! With pleasure!\"",
        "{name} counted {a} birds in the {place}. Then {b} more birds came. {a} and {b} makes {total}, so there were {total} birds.",
        "Today is {day}. Tomorrow is {tomorrow}. {name} will visit the {place} and {deed}.",
        "\"How are you?\" asked {name}. \"I am {feeling}, thanks for asking!\" said {other}. They ate {food} together.",
        "{name} bought {a} {thing} at the {place}, and {b} more the next morning. That makes {total} in all.",
        "{other} had {total} {thing} and gave {b} to a {person}. Then {other} had {a} {thing}.",
    ],
    "zh": [
        "{name}有{a}{thing}，{other}又送来{b}{thing}。{a}加{b}等于{total}，现在{name}有{total}{thing}。",
        "桌上有{total}{thing}，{name}拿走了{a}{thing}，还剩{b}{thing}，因为{total}减{a}等于{b}。",
        "{day}，{name}去了{place}，那天天气{weather}。第二天是{tomorrow}，{name}在家里{deed}。",
        "{name}在{place}遇见了{other}。“早上好！”{name}说。“你好，见到你真高兴！”{other}说。两个人都很{feeling}。",
        "{month}的天气常常{weather}。{month}的下一个月是{next}，{name}喜欢和{other}一起{deed}。",
        "{name}给{other}做了{food}。“谢谢你！”{other}说。“不客气。”{name}说。",
        "{person}请{name}帮忙{deed}。{name}很{feeling}，说：“当然可以！”",
        "{name}在{place}数了{a}只鸟，后来又飞来{b}只。{a}加{b}是{total}，一共有{total}只鸟。",
        "今天是{day}，明天是{tomorrow}。{name}要去{place}{deed}。",
        "“你好吗？”{name}问。“我很{feeling}，谢谢你！”{other}说。他们一起吃了{food}。",
        "{name}在{place}买了{a}{thing}，第二天又买了{b}{thing}，一共有{total}{thing}。",
        "{other}有{total}{thing}，送给{person}{b}{thing}，还剩{a}{thing}。",
    ],
}  # fmt: skip


def story(rng: random.Random, code: str) -> str:
    """One small story; its sums, days and months are right."""
    a, b = rng.randint(2, 10), rng.randint(2, 10)
    name, other = rng.sample(NAMES[code], 2)
    days, months = (english.DAYS, english.MONTHS) if code == "en" else (chinese.DAYS, chinese.MONTHS)
    day, month = rng.randrange(7), rng.randrange(12)
    slots = {kind: rng.choice(words) for kind, words in WORDS[code].items()}
    slots |= {"name": name, "other": other, "a": str(a), "b": str(b), "total": str(a + b)}
    slots |= {"day": days[day], "tomorrow": days[(day + 1) % 7], "month": months[month], "next": months[(month + 1) % 12]}
    return rng.choice(STORIES[code]).format(**slots)


def restated(rng: random.Random, code: str) -> str:
    """One fact said in three to six ways: what is said again is copied, which is what an answer does with its question."""
    language = LANGUAGES[code]
    topic = draw_topic(rng, language)
    subject, answer = rng.choice(topic.facts)
    patterns = rng.choices(topic.statements, k=rng.randint(3, 6))
    lines = [sentence(pattern, subject, answer, language) + language.stop for pattern in patterns]
    return ("\n" if rng.random() < 0.3 else language.space).join(lines)


def fact_list(rng: random.Random, code: str) -> str:
    """Four to ten facts of one topic, in one wording or in mixed ones."""
    language = LANGUAGES[code]
    topic = draw_topic(rng, language)
    facts = rng.sample(topic.facts, min(rng.randint(4, 10), len(topic.facts)))
    fixed = rng.choice(topic.statements) if rng.random() < 0.5 else None
    lines = [sentence(fixed or rng.choice(topic.statements), subject, answer, language) + language.stop for subject, answer in facts]
    return ("\n" if rng.random() < 0.3 else language.space).join(lines)


def table(rng: random.Random, code: str) -> str:
    """A run of a table: sums that share a number, or a stretch of counting, days or months, onward or back."""
    kind = rng.choice(["plus", "plus", "minus", "count", "days", "months"])
    comma = ", " if code == "en" else "，"
    n = rng.randint(2, 12)
    if kind == "plus":
        items = [f"{n} + {b} = {n + b}" if code == "en" else f"{n}+{b}={n + b}" for b in range(2, 13)]
    elif kind == "minus":
        items = [f"{n + 4} - {b} = {n + 4 - b}" if code == "en" else f"{n + 4}-{b}={n + 4 - b}" for b in range(2, n + 3)]
    elif kind == "count":
        items = [str(number) for number in range(n, n + 20)]
    else:
        words = english if code == "en" else chinese
        items = (words.DAYS if kind == "days" else words.MONTHS) * 2
    if kind in ("count", "days", "months") and rng.random() < 0.4:
        items = items[::-1]
    start = rng.randrange(max(1, len(items) - 8))
    return comma.join(items[start : start + 8]) + LANGUAGES[code].stop
